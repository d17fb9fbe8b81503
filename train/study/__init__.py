"""The study in results/: what its records show, and the page made from them."""
