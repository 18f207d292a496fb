"""The names of the ways to train a student."""

FLOW_MAP = "flow-map"  # predicts the teacher's laws; the flow map on top
TWO_HEAD = "two-head"  # predicts tokens and vectors; as published
METHODS = (FLOW_MAP, TWO_HEAD)
