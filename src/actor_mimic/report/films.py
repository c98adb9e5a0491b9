"""The films of a report: which ones a page shows, and how they get into it.

Every stage keeps films of its games in ``films/``: ``TASK.mp4``, ``TASK-beside.mp4`` (a student
and its expert in the same game) and ``grid.mp4`` (all games of a student at once).
"""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from actor_mimic.errors import ActorMimicError
from actor_mimic.report.aggregate import STUDENTS, Collection, Run
from actor_mimic.storage.durable import read_regular
from actor_mimic.storage.run_dir import slug

FILMS = "films"
GRID, BESIDE = "grid", "-beside"
# In base64 four thirds of this; with everything else a page stays under 15 MB.
MAX_BYTES = 10 << 20
_BRAND = b"ftyp"  # bytes 4 to 8 of an MP4 file


@dataclass(frozen=True)
class Film:
    """One film of a run.

    Attributes:
        path: of the MP4 file.
        title: what it shows.
        large: whether it shows many games, and needs the room.
    """

    path: Path
    title: str
    large: bool


@dataclass(frozen=True)
class Embedded:
    """A film inside a page."""

    title: str
    large: bool
    uri: str


def find_films(collection: Collection) -> list[Film]:
    """Those that say most, first: all games of each student, then game by game; then transfers.

    Of several seeds the first that has films is shown; a student's game beside its expert stands
    for the films of the two.
    """
    shown: dict[str, list[Film]] = {}
    for run in collection.runs:
        if not shown.get(run.name):
            shown[run.name] = list(_films_of(collection, run))
    taught = {
        parent.name
        for run in collection.runs
        if run.kind == "distill" and shown[run.name]
        for parent in map(collection.run_of, run.parents)
        if parent is not None
    }
    order = {"distill": 0, "transfer": 1}
    runs = sorted({run.name: run for run in collection.runs}.values(),
                  key=lambda run: order.get(run.kind, 2))  # fmt: skip
    films = [film for run in runs if run.name not in taught for film in shown[run.name]]
    return sorted(films, key=lambda film: film.path.stem != GRID)


def embed(films: Sequence[Film], *, max_bytes: int = MAX_BYTES) -> tuple[list[Embedded], list[str]]:
    """Reads films into data URIs, as long as there is room.

    Returns:
        Those inside, and for the others where they are and why they were left out.
    """
    inside: list[Embedded] = []
    left_out: list[str] = []
    room = max_bytes
    for film in films:
        try:
            size = film.path.stat().st_size
            content = read_regular(film.path, max_bytes=room) if size <= room else None
        except (OSError, ActorMimicError) as error:
            left_out.append(f"{film.path}: {error}")
            continue
        if content is None:
            left_out.append(f"{film.path}: {size:,} bytes more than a page has room for")
        elif content[4:8] != _BRAND:
            left_out.append(f"{film.path}: expected an MP4 file")
        else:
            room -= len(content)
            encoded = base64.b64encode(content).decode("ascii")
            inside.append(Embedded(film.title, film.large, f"data:video/mp4;base64,{encoded}"))
    return inside, left_out


def _films_of(collection: Collection, run: Run) -> Iterator[Film]:
    if run.kind in STUDENTS:
        yield from _film(run, GRID, f"{run.name}: one network, all its games", large=True)
        teachers = dict(zip(run.tasks, run.parents, strict=False))
        for task in run.tasks:
            beside = list(_film(run, _name(task) + BESIDE, f"{task}: {run.name} and expert"))
            yield from beside
            if beside:
                continue
            yield from _film(run, _name(task), f"{task}: {run.name}")
            expert = collection.run_of(teachers.get(task, ""))
            if expert is not None:
                yield from _film(expert, _name(task), f"{task}: {expert.name}")
        return
    for task in run.tasks:
        yield from _film(run, _name(task), f"{task}: {run.name}")


def _film(run: Run, name: str, title: str, *, large: bool = False) -> Iterator[Film]:
    path = run.path / FILMS / f"{name}.mp4"
    if name and path.is_file():
        yield Film(path, title, large)


def _name(task: str) -> str:
    """How a task's films are called; empty if nothing can be."""
    try:
        return slug(task)
    except ActorMimicError:
        return ""
