"""The tasks, one file each, and their networks."""
