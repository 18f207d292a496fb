"""The names of the ways to train a student."""

FLOW_MAP = "flow-map"  # predicts the teacher's laws; the flow map on top
METHODS = (FLOW_MAP,)
