"""The parts of `epoch`, its arithmetic and its peers, and data for the others."""
