"""Run tasks in worker processes or on a cluster, and isolate files that crash or block them."""
