"""One style for every figure: drawn by Matplotlib, coloured and lettered by the page.

A figure is drawn in roles, not in colours: each role has a colour that no picture has, and the
SVG that goes into a page carries a class in its place, so that one style sheet colours light and
dark pages. The letters are text in the page's own font. No style attribute remains, since the
page's policy forbids them, and no text is read as TeX.
"""

import hashlib
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from actor_mimic.errors import UnavailableError
from actor_mimic.report.printable import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

WIDE, PANEL = 5.4, 4.2  # inches of 72 units; a phone shows one unit as about one pixel
FONT_UNITS = 11.5

ROLES = ("ink", "quiet", "line", "paper", "student", "expert", "random", "third", "fourth")
_COLOURS = {role: f"#0000{number:02x}" for number, role in enumerate(ROLES, start=1)}
_ROLE_OF = {colour: role for role, colour in _COLOURS.items()}

_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": FONT_UNITS,
    "axes.labelsize": FONT_UNITS,
    "xtick.labelsize": FONT_UNITS - 0.5,
    "ytick.labelsize": FONT_UNITS - 0.5,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _COLOURS["line"],
    "axes.labelcolor": _COLOURS["quiet"],
    "axes.linewidth": 1.0,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": _COLOURS["line"],
    "grid.linewidth": 0.8,
    "text.color": _COLOURS["ink"],
    "xtick.color": _COLOURS["line"],
    "ytick.color": _COLOURS["line"],
    "xtick.labelcolor": _COLOURS["quiet"],
    "ytick.labelcolor": _COLOURS["quiet"],
    "xtick.major.size": 3.0,
    "ytick.major.size": 0.0,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
# What a page needs of the SVG that Matplotlib writes; anything else is left out.
_PROPERTIES = frozenset(
    {
        "fill",
        "fill-opacity",
        "font-size",
        "font-weight",
        "opacity",
        "stroke",
        "stroke-dasharray",
        "stroke-dashoffset",
        "stroke-linecap",
        "stroke-linejoin",
        "stroke-opacity",
        "stroke-width",
        "text-anchor",
    }
)
_ATTRIBUTES = frozenset({"d", "x", "y", "width", "height", "transform", "viewBox"})
_TAGS = frozenset({"svg", "g", "path", "use", "text", "defs", "clipPath", "rect"})
_LINK = "{http://www.w3.org/1999/xlink}href"
_ID = re.compile(r"#([\w.-]+)")


def colour(role: str) -> str:
    """What a role is drawn in, for the style sheet to replace."""
    return _COLOURS[role]


def role_rules() -> str:
    """Rules of a style sheet: each role in the colour that a variable of its name holds."""
    return "".join(
        f".fill-{role} {{ fill: var(--{role}); }} .stroke-{role} {{ stroke: var(--{role}); }}\n"
        for role in ROLES
    )


@contextmanager
def drawing(
    width: float, height: float, *, left: int, right: int, top: int, bottom: int
) -> "Iterator[tuple[Figure, Axes]]":
    """A figure of one set of axes; everything that is drawn in the block has the style.

    Args:
        width: in inches of 72 units.
        height: in inches.
        left: margin beside the axes, in units.
        right: the same.
        top: margin over the axes, in units.
        bottom: margin under them.

    Raises:
        UnavailableError: if Matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UnavailableError(
            "the figures of a report need Matplotlib, which is not installed; "
            "install it with: pip install 'actor-mimic[report]'"
        ) from error
    across, down = 72.0 * width, 72.0 * height
    inner = (across - left - right) / across, (down - top - bottom) / down
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(width, height))
        yield figure, figure.add_axes((left / across, bottom / down, *inner))


def letter(axes: "Axes", x: float | int, y: float | int, text: object, **style: Any) -> "Text":
    """Text at data coordinates, or others by ``transform``; never read as TeX."""
    style.setdefault("color", colour("ink"))
    return axes.text(x, y, label(text), parse_math=False, **style)


def label(text: object, *, max_length: int = 40) -> str:
    """A name on a figure: one line without control characters, cut where it is too long."""
    return printable(text, max_length=max_length)


def inline_svg(figure: "Figure", name: str) -> str:
    """The figure as an ``svg`` element for a page.

    Args:
        figure: drawn inside `drawing`, and rendered there.
        name: what it shows, in one sentence, for those who do not see it.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    # Names of clip paths and markers must differ between the figures of one page.
    salt = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:8]
    written = io.StringIO()
    with (
        matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": salt}),
        warnings.catch_warnings(),
    ):
        # The letters are drawn by the reader's fonts, not by those that Matplotlib measures with.
        warnings.filterwarnings("ignore", message="Glyph")
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        FigureCanvasSVG(figure).print_svg(written, metadata=nothing)
    root = ElementTree.fromstring(written.getvalue())
    used = {found for element in root.iter() for found in _ids_used(element)}
    clean = _clean(root, used, salt)
    clean.attrib.pop("width", None)
    clean.attrib.pop("height", None)
    clean.attrib |= {"role": "img", "aria-label": label(name, max_length=300)}
    return ElementTree.tostring(clean, encoding="unicode")


def _ids_used(element: ElementTree.Element) -> list[str]:
    values = (element.get(_LINK, ""), element.get("clip-path", ""))
    return [found for value in values for found in _ID.findall(value)]


def _clean(source: ElementTree.Element, used: set[str], salt: str) -> ElementTree.Element:
    """A copy with the elements and attributes that a page needs, and none other."""
    target = ElementTree.Element(_tag(source), _attributes(source) | _look(source))
    for name, kept in ((_LINK, "href"), ("clip-path", "clip-path")):
        if name in source.attrib:
            target.set(kept, _ID.sub(rf"#f{salt}\1", source.attrib[name]))
    if source.get("id") in used:
        target.set("id", f"f{salt}{source.get('id')}")
    target.text = source.text if _tag(source) == "text" else None
    target.extend(_clean(child, used, salt) for child in source if _tag(child) in _TAGS)
    return target


def _attributes(source: ElementTree.Element) -> dict[str, str]:
    # In the order of the source: that of a set would make another page of every process.
    kept = ((name, value) for name, value in source.attrib.items() if name in _ATTRIBUTES)
    found = {name: " ".join(value.split()) for name, value in kept}
    if found.get("transform", "").startswith("rotate(-0 "):
        del found["transform"]
    return found


def _look(source: ElementTree.Element) -> dict[str, str]:
    """Of the style attribute: roles as classes, the rest as attributes."""
    found, classes = {}, []
    for declaration in source.get("style", "").split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        role = _ROLE_OF.get(value)
        if role is not None:
            classes.append(f"{name}-{role}")
        elif name in _PROPERTIES:
            found[name] = value
    return found | ({"class": " ".join(classes)} if classes else {})


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]
