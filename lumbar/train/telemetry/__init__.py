"""What the machine has and does: cores, memory, GPUs, their counters."""
