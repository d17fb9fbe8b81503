"""What the commands share: their options, how they train once, how they end."""
