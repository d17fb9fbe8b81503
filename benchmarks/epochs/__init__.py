"""The parts of `epoch`, `layers` and `scaling`: an epoch, its parts, its peers."""
