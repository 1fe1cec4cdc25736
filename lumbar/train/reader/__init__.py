"""From a plan to batches on the device: volumes, prefetching, DALI's pipeline."""
