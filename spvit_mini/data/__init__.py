"""Data: made sets, image sets, augmentation, and the order in which images come."""
