"""What `epoch` is made of: its arithmetic and its peers; and data for the others."""
