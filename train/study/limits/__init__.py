"""The study of networks that training limits: where GC gains, and how to tell."""
