"""The plan of an epoch in plain numbers: folds, sample order, slices, crops, augmentation."""
