"""What a step consists of: folds, order, crops, augmentation, as plain numbers."""
