"""The parts of `accelerator`: what it measures, and its tables."""
