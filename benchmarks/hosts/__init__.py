"""What `processes` and `step_aot` are made of: a step on many hosts or chips."""
