"""The parts of `overhead` and `tpu_aot`: updates, compiled, timed and counted."""
