"""The directive ``verbs``: every verb of the command line, from what its ``--help`` says.

The help is the one text that a user sees anyway; taking it as it is printed, and not from the
parser's objects, keeps this independent of the library behind it.
"""

import contextlib
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from unittest import mock

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

# Wide enough that no line of a help is broken.
_WIDE = "1000"


@dataclass
class Option:
    """One row of a help's boxes: ``--seed N`` and what is said of it."""

    name: str
    text: list[str] = field(default_factory=list)


@dataclass
class VerbHelp:
    """A verb's help: the lines above its boxes, and what is in them."""

    text: list[str]
    options: list[Option]


def read_help(verb: str) -> VerbHelp:
    """Asks the command line for the help of a verb, and takes it apart."""
    from actor_mimic import cli

    # Boxes are drawn for an output that has an encoding.
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    wide = mock.patch.dict(os.environ, {"COLUMNS": _WIDE, "NO_COLOR": "1"})
    with wide, contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        cli.main([verb, "--help"])
    printed.seek(0)
    lines = printed.read().splitlines()
    boxes = [line.strip("│").rstrip() for line in lines if line.startswith("│")]
    text = [line for line in lines if not re.match("[│╭╰]", line)]
    # The first line is the usage, which the options say again.
    return VerbHelp(text[1:], list(_options(boxes)))


def _options(rows: list[str]) -> Iterator[Option]:
    """Options of the boxes of a help, but for --help itself."""
    found: list[Option] = []
    for row in rows:
        if row.startswith(" ─"):
            # What stood above the rule describes the box.
            found.pop()
        elif re.match(r" \S", row):
            name, _, text = row.strip().partition("  ")
            found.append(Option(name, [text.strip()] if text else []))
        elif row.strip():
            found[-1].text.append(row.strip())
    yield from (option for option in found if not option.name.startswith("-h"))


class Verbs(SphinxDirective):
    """Sections of all verbs, as the command line lists them."""

    def run(self) -> list[nodes.Node]:
        """The sections."""
        from actor_mimic.cli import VERBS

        found: list[nodes.Node] = []
        for verb in VERBS:
            section = nodes.section(ids=[verb], names=[verb])
            section += nodes.title(verb, verb)
            self.state.document.note_explicit_target(section)
            source = StringList(_page(verb, read_help(verb)), source=f"{verb} --help")
            self.state.nested_parse(source, 0, section)
            found.append(section)
        return found


def _page(verb: str, told: VerbHelp) -> list[str]:
    """One verb in MyST."""
    fence = "`````"
    prose = [line for line in told.text if not line.startswith("  ") and line != "For example:"]
    examples = [line.strip() for line in told.text if line.startswith("  ")]
    page = [*prose, "", f"{fence}sh", *examples, fence, ""]
    page += [f"{fence}{{program}} actor-mimic {verb}", fence]
    for option in told.options:
        text = [re.sub(r"(?<!\S)--[a-z-]+", r"`\g<0>`", line) for line in option.text]
        page += [f"{fence}{{option}} {option.name}", "", *text, fence, ""]
    return page


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("verbs", Verbs)
    return {"parallel_read_safe": True}
