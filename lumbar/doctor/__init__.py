"""Facts about a machine, and checks of everything that `lumbar` needs of it."""
