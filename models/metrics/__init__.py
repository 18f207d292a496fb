"""Metrics that compare two sets of samples, with noise floors and intervals. No Ray, no files."""
