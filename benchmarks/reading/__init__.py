"""What `zoo` is made of: models of many libraries, and verdicts on what is read."""
