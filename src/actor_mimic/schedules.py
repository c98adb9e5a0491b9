"""Schedules: a hyper-parameter as a function of the steps (or updates) taken so far."""


def linear(step: int, *, start: float, end: float, duration_steps: int) -> float:
    """Move from one value to another along a straight line, then stay.

    Args:
        step: steps taken so far, not negative. Updates do as well, if ``duration_steps`` counts
            updates too.
        start: the value at step 0.
        end: the value at ``duration_steps`` and ever after.
        duration_steps: length of the line, positive.

    Returns:
        The value at ``step``; exactly ``start`` and ``end`` at the two ends.

    Raises:
        ValueError: if ``step`` is negative or ``duration_steps`` is not positive.

    Example:
        >>> linear(25, start=1.0, end=0.0, duration_steps=100)
        0.75
    """
    if step < 0:
        raise ValueError(f"step must not be negative, got {step}")
    if duration_steps <= 0:
        raise ValueError(f"duration_steps must be positive, got {duration_steps}")
    if step >= duration_steps:
        return end
    return start + (end - start) * (step / duration_steps)
