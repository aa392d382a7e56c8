"""The network and its device in torch."""
