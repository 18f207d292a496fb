"""Tensor parallelism: one decoder, split over the ranks of a group of processes."""
