"""Series in many processes: workers, timeouts, a cluster, failures kept apart."""
