"""What `accelerator` is made of: the parts that it measures, and their tables."""
