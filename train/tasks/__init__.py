"""What is trained: a file a task, and the networks beside it."""
