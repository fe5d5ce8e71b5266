"""Augmentations of sound and features for mtcore."""
