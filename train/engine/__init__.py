"""Trains a task, whatever it is."""
