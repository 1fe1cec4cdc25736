"""The networks: a CNN per slice, a sequence model over the slices, a head of 25 x 3 logits."""
