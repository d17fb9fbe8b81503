"""The parts of `removed`: small networks, and the shares that GC removes in them."""
