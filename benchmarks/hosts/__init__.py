"""The parts of `processes` and `step_aot`: a step on many hosts or chips."""
