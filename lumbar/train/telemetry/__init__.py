"""The machine: its cores, memory and GPUs, and how busy they are."""
