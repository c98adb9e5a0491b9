"""A report as one HTML file that needs nothing else and runs nothing."""

import base64
import hashlib
import json
from datetime import timedelta
from importlib import resources
from pathlib import Path
from typing import Any

from actor_mimic.errors import StorageError, UnavailableError
from actor_mimic.report.aggregate import Collection, Run, collect
from actor_mimic.report.printable import printable
from actor_mimic.report.tables import (
    MISSING,
    SCORE_HEADINGS,
    TRANSFER_HEADINGS,
    protocols_note,
    score_rows,
    transfer_rows,
)
from actor_mimic.storage.durable import replace_file

PAGE = "report.html"
RUN_HEADINGS = ("stage", "seed", "kind", "protocol", "begun", "took", "state")


def write_report(run_dir: Path) -> Path:
    """Writes ``report.html`` into the directory of a recipe, or of a single run.

    Returns:
        Where it is.

    Raises:
        DataError: if there is no run.
        UnavailableError: if Jinja2 is not installed.
        StorageError: if it cannot be written.
    """
    path = run_dir / PAGE
    content = render(collect(run_dir)).encode("utf-8")
    try:
        replace_file(path, content)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error}") from error
    return path


def render(collection: Collection) -> str:
    """The page. Every value is escaped; the policy in its head forbids scripts and connections.

    Raises:
        UnavailableError: if Jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise UnavailableError(
            "a report needs Jinja2, which is not installed; "
            "install it with: pip install 'actor-mimic[report]'"
        ) from error

    def finalise(value: Any) -> Any:
        # Control characters and marks that reorder text are no business of a report.
        return value if isinstance(value, Markup) else printable(value)

    files = resources.files("actor_mimic.report")
    style = files.joinpath("page.css").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, finalize=finalise)
    template = environment.from_string(files.joinpath("page.html.j2").read_text(encoding="utf-8"))
    return template.render(
        title=collection.title,
        description=collection.description,
        command=collection.command,
        style=Markup(style),
        style_hash=style_hash(style),
        score_headings=SCORE_HEADINGS,
        scores=[row.cells() for row in score_rows(collection)],
        transfer_headings=TRANSFER_HEADINGS,
        transfers=[row.cells() for row in transfer_rows(collection)],
        note=protocols_note(collection),
        run_headings=RUN_HEADINGS,
        runs=[_cells(run) for run in collection.runs],
        details=[{"title": _title(run), "facts": _facts(run)} for run in collection.runs],
        problems=collection.problems,
    )


def style_hash(style: str) -> str:
    """How the content security policy names the one style sheet that it allows."""
    digest = hashlib.sha256(style.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def _title(run: Run) -> str:
    return f"{run.name}, seed {run.seed}"


def _cells(run: Run) -> tuple[str, ...]:
    took = MISSING if run.seconds is None else str(timedelta(seconds=round(run.seconds)))
    state = "done" if run.complete else "not finished"
    return (run.name, str(run.seed), run.kind, run.protocol, run.created, took, state)


def _facts(run: Run) -> list[tuple[str, str]]:
    config = [(name, _show(value)) for name, value in sorted(run.config.items())]
    versions = [
        (name, "not installed" if version is None else _show(version))
        for name, version in sorted(run.versions.items())
    ]
    return [("directory", str(run.path)), *config, *versions]


def _show(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
