"""The plain-file format: meaning on top of keys."""
