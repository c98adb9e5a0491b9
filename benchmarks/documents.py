"""Tables in documents that a command writes, between two lines that say so; figures beside them."""

import re
from importlib import resources
from xml.etree import ElementTree

from actor_mimic.report.style import role_rules

_SVG = "http://www.w3.org/2000/svg"
_LETTERS = 'text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }'


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


def standalone(figure: str) -> str:
    """A figure of a report as a file of its own, which brings the page's colours with it.

    Args:
        figure: an ``svg`` element, as `actor_mimic.report.figures` draws it.
    """
    root = ElementTree.fromstring(figure)
    *_, width, height = root.attrib["viewBox"].split()
    root.attrib |= {"xmlns": _SVG, "width": width, "height": height}
    page = resources.files("actor_mimic.report").joinpath("page.css").read_text(encoding="utf-8")
    # Of the page's style sheet the colours, first those of light and then those of dark screens.
    colours = re.match(r":root \{.*?\}\n@media [^{]*dark[^{]*\{.*?\}\n\}", page, re.DOTALL)
    assert colours is not None
    ground = {"class": "fill-paper", "width": width, "height": height}
    style = ElementTree.Element("style")
    style.text = "\n".join([colours[0], _LETTERS, role_rules()])
    root.insert(0, style)
    root.insert(1, ElementTree.Element("rect", ground))
    return ElementTree.tostring(root, encoding="unicode") + "\n"
