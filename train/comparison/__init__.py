"""What `train.compare` is made of: which runs there are, and how they run."""
