"""From a plan to batches on the device: volumes, DALI's pipeline, prefetching."""
