"""What `removed` is made of: small networks, and the shares that GC removes in them."""
