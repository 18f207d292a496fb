"""What changes with the step of a training: the learning rate and the average's weight."""

WARM_UP = 30  # steps


def rate_at(step: int, *, steps: int, peak: float, warm_up: float = WARM_UP) -> float:
    """The learning rate: a linear rise over `warm_up` steps, then a linear fall to 0 at the end."""
    rise, fall = (step + 1) / warm_up, (steps - step) / max(1, steps - warm_up)
    return peak * min(1.0, rise, fall)


def average_weight(step: int) -> float:
    """The share of the average that stays as it is in a step: less in the first steps."""
    return min(0.999, (step + 1) / (step + 10))
