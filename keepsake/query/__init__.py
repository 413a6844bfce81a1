"""Reading many experiments: what is looked for and what differs, as data."""
