"""Links from a page to the code: to the documentation of what they name, on the built site.

In the repository a page links to the file that defines a name, as
[`name`](../src/actor_mimic/losses.py). On the site the same link leads to that name's docstring,
which has its source beside it; the directive ``linked-code`` makes the page where those stand that
are not public. A link to something that is documented nowhere is a warning, hence an error.

Directories of the repository are not on the site: of a link to one the text stays.
"""

import importlib
import inspect
import re
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.domains.python import PyXRefRole
from sphinx.util.docutils import SphinxDirective

import actor_mimic

_TO_CODE = re.compile(r"\[`([\w.]+)`\]\((?:\.\./)+src/(actor_mimic/[\w/]+)\.py\)")
_TO_REPOSITORY = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+[^)#]+)\)")
_DIRECTIVES = {True: "autoclass", False: "autofunction"}


def relink(text: str, page: Path) -> str:
    """A page's Markdown with its links into the repository turned into links on the site."""

    def keep_files(found: re.Match[str]) -> str:
        return found[1] if (page.parent / found[2]).is_dir() else found[0]

    def to_docstring(found: re.Match[str]) -> str:
        module, name = _named(found)
        home = actor_mimic.__name__ if _is_public(module, name) else module
        return f"{{py:linked}}`{name} <{home}.{name}>`"

    text = _TO_CODE.sub(to_docstring, text)
    return _TO_REPOSITORY.sub(keep_files, text)


def linked_names(text: str) -> list[tuple[str, str]]:
    """Modules and names that a page links to, without those of public classes and functions."""
    found = {_named(link) for link in _TO_CODE.finditer(text)}
    return sorted(pair for pair in found if not _is_public(*pair))


def _named(link: re.Match[str]) -> tuple[str, str]:
    return link[2].replace("/", "."), link[1]


def _is_public(module: str, name: str) -> bool:
    """Whether a name, or the class that it belongs to, is documented as one of the package."""
    head = name.partition(".")[0]
    return head in actor_mimic.__all__ and getattr(actor_mimic, head).__module__ == module


class LinkedCode(SphinxDirective):
    """Docstrings of what some pages link to, module by module."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """The docstrings."""
        pages = [Path(self.env.doc2path(name)) for name in self.arguments[0].split()]
        for page in pages:
            self.env.note_dependency(str(page))
        text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
        lines = StringList(list(_directives(linked_names(text))), source="linked-code")
        box = nodes.container()
        self.state.nested_parse(lines, 0, box)
        return box.children


def _directives(names: list[tuple[str, str]]) -> Iterator[str]:
    """In reStructuredText, which is what docstrings become."""
    yield "```{eval-rst}"
    for module, name in names:
        found = attrgetter(name)(importlib.import_module(module))
        kind = "automethod" if "." in name else _DIRECTIVES[inspect.isclass(found)]
        yield from (f".. {kind}:: {module}.{name}", "")
    yield "```"


def _relink_page(app: Sphinx, name: str, content: list[str]) -> None:
    content[0] = relink(content[0], Path(app.env.doc2path(name)))


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("linked-code", LinkedCode)
    app.add_role_to_domain("py", "linked", PyXRefRole(warn_dangling=True))
    app.connect("source-read", _relink_page)
    return {"parallel_read_safe": True}
