"""What the commands share: their options, how they train a task, how they end."""
