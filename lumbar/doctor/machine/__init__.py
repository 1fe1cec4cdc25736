"""What a machine has, and whether it is enough."""
