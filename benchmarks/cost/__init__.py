"""What `overhead` and `tpu_aot` are made of: updates, compiled, timed and counted."""
