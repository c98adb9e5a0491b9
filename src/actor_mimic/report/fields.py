"""Single values of files that somebody may have edited: what they should be, or nothing."""

import math
from typing import Any


def number(content: Any) -> float | None:
    """A finite number."""
    if isinstance(content, bool) or not isinstance(content, int | float):
        return None
    try:
        value = float(content)
    except OverflowError:
        return None
    return value if math.isfinite(value) else None


def count(content: Any) -> int | None:
    """A whole number from 0 on."""
    return content if type(content) is int and 0 <= content < 2**63 else None


def numbers(content: Any) -> tuple[float, ...]:
    """Numbers, all of them finite; otherwise empty."""
    values = [number(value) for value in content] if isinstance(content, list) else []
    known = tuple(value for value in values if value is not None)
    return known if len(known) == len(values) else ()


def interval(content: Any) -> tuple[float, float] | None:
    """A list of two numbers."""
    values = numbers(content)
    return (values[0], values[1]) if len(values) == 2 else None


def mapping(content: Any) -> dict[str, Any]:
    """A JSON object, or an empty one."""
    return content if isinstance(content, dict) else {}


def text(content: Any) -> str:
    """Text, or the empty one."""
    return content if isinstance(content, str) else ""
