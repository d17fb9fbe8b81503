"""What `epoch`, `layers` and `scaling` are made of: an epoch, its parts, its peers."""
