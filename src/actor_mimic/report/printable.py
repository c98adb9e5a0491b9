"""Text from files, environments and names, made safe to print."""

import unicodedata

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
