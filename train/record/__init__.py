"""What a run leaves and shows, and what many runs say together."""
