"""The experiment: Gradient Centralization on Horses or Humans, with Flax Linen."""
