"""What can run a network: a list to choose from, and a watch over the one that was chosen."""
