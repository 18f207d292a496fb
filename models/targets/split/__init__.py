"""Tensor parallelism: one target, split over the ranks of a group of processes."""
