"""What is in noisy pictures that have no clean side: how much noise, of what kind, and where."""
