"""In what two configurations differ, setting by setting."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

_ABSENT = object()


class Difference(NamedTuple):
    """A setting before and after; either may be absent."""

    before: Any
    after: Any

    def tell(self, key: str) -> str:
        """In words, for a message."""
        return f"{key} (stored: {_show(self.before)}, asked: {_show(self.after)})"

    def to_json(self) -> dict[str, Any]:
        """``before`` and ``after``, without the one that is absent."""
        return {when: value for when, value in self._asdict().items() if value is not _ABSENT}


def differences(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Difference]:
    """By dotted key, what was stored and what is asked, where they differ."""
    old, new = _flatten(stored), _flatten(asked)
    pairs = {
        key: Difference(old.get(key, _ABSENT), new.get(key, _ABSENT))
        for key in sorted(old.keys() | new.keys())
    }
    return {key: pair for key, pair in pairs.items() if pair.before != pair.after}


def is_below(key: str, names: Iterable[str]) -> bool:
    """Whether a dotted key is one of some names, or of something inside one."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _show(value: Any) -> str:
    return "absent" if value is _ABSENT else json.dumps(value)[:200]
