"""Published models, and what the definitions of their layers say about each leaf."""
