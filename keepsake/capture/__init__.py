"""What is recorded when a run starts: its surroundings, packages and files, without secrets."""
