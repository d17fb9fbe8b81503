"""The parts of `train.compare`: which runs there are, and how they are trained."""
