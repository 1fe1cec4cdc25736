"""Everything with tensors: cache -> batches -> model -> predictions, and the benchmark."""
