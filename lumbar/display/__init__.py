"""How the commands look on a terminal: the only part of lumbar that writes to one."""
