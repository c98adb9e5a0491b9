"""How a value of a TOML file, or a word of the command line, gets the type of its setting."""

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from actor_mimic.errors import ConfigError

_LARGEST_WHOLE = 2**63 - 1


def as_type(name: str, value: Any, wanted: Any) -> Any:
    """The value of a setting.

    Args:
        name: of the setting, for the message.
        value: as it was given.
        wanted: ``int``, ``float``, ``bool``, ``str`` or ``tuple[str, ...]``.

    Raises:
        ConfigError: if it cannot be read as that.
    """
    read, kind = _READERS[wanted]
    try:
        return read(value)
    except (TypeError, ValueError, KeyError, ArithmeticError):
        raise ConfigError(f"{name} must be {kind}, got {value!r}") from None


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise TypeError
    return tuple(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}[_text(value).lower()]


def _number(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError
    number = float(value.replace("_", "") if isinstance(value, str) else value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    # Exact, where a float would round a seed above 2**53.
    number = Decimal(value)
    if not number.is_finite() or abs(number) > _LARGEST_WHOLE or number != int(number):
        raise ValueError
    return int(number)


_READERS: dict[Any, tuple[Callable[[Any], Any], str]] = {
    int: (_whole, "a whole number"),
    float: (_number, "a number"),
    bool: (_truth, "true or false"),
    str: (_text, "text"),
    tuple[str, ...]: (_names, "a list of names"),
}
