"""Text from files, environments and names, made safe to print, and where it is printed."""

import json
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Protocol, runtime_checkable

# What some programs are told by their environment, and nobody else is to read.
SECRET_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY")

MAX_NAME_WIDTH = 32  # a longer name moves its own value, and nobody else's

# Controls, marks that reorder or hide text, lone surrogates, line and paragraph separators.
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: object, *, max_length: int = 2_000) -> str:
    """One line without characters that could steer a terminal or hide what is there.

    Args:
        text: anything; what is not text is printed as Python would.
        max_length: longer text is cut, and ends in three dots.
    """
    spaced = " ".join(str(text)[: 2 * max_length].split())
    kept = "".join(c for c in spaced if unicodedata.category(c) not in _UNPRINTABLE)
    return kept if len(kept) <= max_length else kept[: max_length - 3] + "..."


def printable_facts(facts: Mapping[str, object], *, depth: int = 3) -> Iterator[str]:
    """Names and values, one below the other; what has names of its own is indented.

    Args:
        facts: of strings, numbers, lists and mappings.
        depth: mappings in mappings to indent; what lies deeper is printed as JSON.
    """
    width = min(MAX_NAME_WIDTH, max((len(printable(name)) for name in facts), default=0))
    for name, value in facts.items():
        inner = _named(value) if depth > 1 else {}
        if inner:
            yield printable(name)
            yield from (f"  {line}" for line in printable_facts(inner, depth=depth - 1))
        else:
            yield f"{printable(name):{width}}  {printable(_one_line(value))}"


def _named(value: object) -> Mapping[str, object]:
    """What has names of its own, by them; mappings in a list are numbered."""
    if isinstance(value, list) and all(isinstance(item, Mapping) for item in value):
        return {str(number): item for number, item in enumerate(value, 1)}
    return value if isinstance(value, Mapping) else {}


def _one_line(value: object) -> str:
    if value in (None, "", [], {}):
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(type(item) in (str, int, float) for item in value):
        return ", ".join(map(str, value))
    return json.dumps(value)


def printable_lines(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """Text of several lines with its spaces, and without such characters or any secret.

    Args:
        text: as it came, perhaps in part from a file or from another library's error.
        environ: where the secrets are.
    """
    lines = re.split("[\n\u2028\u2029]", without_secrets(text, environ))
    return "\n".join(
        "".join(c for c in line if unicodedata.category(c) not in _UNPRINTABLE) for line in lines
    )


def without_secrets(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """The text with the names of `SECRET_VARIABLES` in place of what they hold."""
    for name in SECRET_VARIABLES:
        secret = environ.get(name, "")
        # Of a few letters it would be no secret, and found in every other word.
        if len(secret) >= 8:
            text = text.replace(secret, f"${name}")
    return text


@runtime_checkable
class Screen(Protocol):
    """Whatever may be a terminal."""

    def isatty(self) -> bool:
        """Whether it is one."""
        ...


def can_draw(stream: Screen) -> bool:
    """Whether bars and colours make sense there."""
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") in (None, "dumb")
    return stream.isatty() and not plain
