"""Drawings of horses and humans, in NumPy: bodies, light, scenery."""
