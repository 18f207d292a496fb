"""The names of the ways to train a student."""

FLOW_MAP = "flow-map"  # predicts the teacher's laws; the flow map on top
TWO_HEAD = "two-head"  # predicts tokens and vectors; as published
BY_SCORE = "score"  # predicts vectors whose law a second network compares with the teacher's
METHODS = (FLOW_MAP, TWO_HEAD, BY_SCORE)
