"""Back ends that can run a network: the list to choose from, and failover during a run."""
