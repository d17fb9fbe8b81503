"""What a run records and shows, and what many runs show together."""
