"""The training loop, its state, events and logs."""
