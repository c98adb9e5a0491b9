"""Tables in documents that a command writes, between two lines that say so."""


def replace_table(document: str, name: str, command: str, table: str) -> str:
    """A document with its table of that name made anew.

    Raises:
        ValueError: if the document has no place for it, or several.
    """
    begin = f"<!-- {name}: written by {command}, not by hand -->"
    end = f"<!-- end of {name} -->"
    before, found, rest = document.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed or begin in after:
        raise ValueError(f"expected the lines {begin!r} and {end!r}, once each")
    return f"{before}{begin}\n{table}\n{end}{after}"
