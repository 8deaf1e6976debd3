"""From images of good parts to a fitted model: extraction, augmentation, training, threshold."""
