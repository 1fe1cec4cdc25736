"""The network: a CNN for each slice, an LSTM over the slices, a head of 25 x 3 logits."""
