"""The live side of a run."""
