"""Published models, and what the definitions of their layers say of each leaf."""
