"""The study in results/: what its records say, and the page made from them."""
