"""People's eyes: tables and pages of text."""
