"""The study's statistics, by hand and by others, and the committed page."""
