"""Metrics of images: a classifier, and distances between sets of its features."""
