"""The names of the ways to train a student, and by what map their students choose tokens."""

from models.registry import FLOW

FLOW_MAP = "flow-map"  # predicts the teacher's laws; the flow map on top
TWO_HEAD = "two-head"  # predicts tokens and vectors; as published
BY_SCORE = "score"  # predicts vectors whose law a second network compares with the teacher's
METHODS = (FLOW_MAP, TWO_HEAD, BY_SCORE)


def map_of(method: str) -> str:
    """The name of the map from noise to tokens; of students without a named one, the method's."""
    return FLOW if method == FLOW_MAP else method
