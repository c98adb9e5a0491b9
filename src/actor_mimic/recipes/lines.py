"""Where a key stands in a TOML file, which Python's own reader does not say."""

import re
from collections.abc import Sequence

# A recipe may be a stranger's: neither pattern can match one text in two ways.
_TABLE = re.compile(r"(\[\[?)([^\[\]#]+)\]\]?\s*(?:#.*)?")
_KEY = re.compile(r"""\s*["']?([A-Za-z0-9_:.-]+?)["']?\s*=""")


class Lines:
    """Line numbers by table and key.

    Tables are named ``""`` (top), ``defaults.expert``, and ``stage.0``, ``stage.1``, ... in the
    order of the file. A key inside a string of several lines may be taken for a real one: the
    result is for messages only.

    Args:
        text: the file.
    """

    def __init__(self, text: str) -> None:
        self._found: dict[tuple[str, str], int] = {}
        table, count = "", -1
        for number, line in enumerate(text.splitlines(), start=1):
            header = _TABLE.fullmatch(line.strip())
            if header is not None:
                parts = header[2].replace('"', "").replace("'", "").split(".")
                name = ".".join(part.strip() for part in parts)
                if header[1] == "[[" and name == "stage":
                    count += 1
                table = f"stage.{count}{name.removeprefix('stage')}" if _is_stage(name) else name
                self._note_table(table, number)
                continue
            key = _KEY.match(line)
            if key is not None:
                self._found.setdefault((table, key[1].split(".")[0]), number)
                self._found.setdefault((table, key[1]), number)
                stage, _, inner = table.partition(".")[2].partition(".")
                if inner:
                    self._found.setdefault((f"stage.{stage}", f"{inner}.{key[1]}"), number)

    def find(self, table: str, keys: Sequence[str] = ()) -> int | None:
        """The line of the first of these keys that is there, else of the table's header."""
        for key in keys:
            if (table, key) in self._found:
                return self._found[table, key]
        return self._found.get((table, ""))

    def _note_table(self, table: str, number: int) -> None:
        self._found.setdefault((table, ""), number)
        outer, _, last = table.rpartition(".")
        self._found.setdefault((outer, last), number)


def _is_stage(name: str) -> bool:
    return name == "stage" or name.startswith("stage.")
