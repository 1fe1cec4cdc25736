"""Is data loading the bottleneck? Measured on this machine, beside the usual ways."""
