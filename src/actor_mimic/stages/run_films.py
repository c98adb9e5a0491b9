"""The films that a run keeps beside its scores.

::

    run/films/
        pong.mp4            the beginning of a game, of each task
        pong-beside.mp4     the same played by a student, and by the expert that taught it
        grid.mp4            all tasks of a student at once
        pong.json, ...      of each film: who played, by the hash of the weights, how, the scores

Half a minute each, and small enough that a page can hold those of many games. A film whose JSON
names the same players and rules is not made again.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from actor_mimic.compute import Compute
from actor_mimic.errors import CannotCreateError, DataError, StorageError
from actor_mimic.stages.films import TEMPERATURE, Played, Player, Rules, record_film, watch
from actor_mimic.storage.checkpoint import Checkpoint
from actor_mimic.storage.durable import clean_leftovers, json_bytes, replace_file
from actor_mimic.storage.manifest import SCHEMA_VERSION
from actor_mimic.storage.records import Record
from actor_mimic.storage.run_dir import read_run_json, slug
from actor_mimic.teachers.own import load_teachers

FILMS = "films"
GRID = "grid"
BESIDE = "-beside"
FILM_STEPS = 450  # half a minute of an Atari game
FILM_BYTES = 500_000  # of one player's
FILM_BYTES_OF_SEVERAL = 800_000


@dataclass(frozen=True)
class Role:
    """A checkpoint in one of its tasks, under the name that the film shows."""

    who: str
    task: str
    checkpoint: Checkpoint


@dataclass(frozen=True)
class Plan:
    """A film of a run: its name without ``.mp4``, and who plays."""

    name: str
    roles: tuple[Role, ...]


@dataclass(frozen=True)
class RunFilms:
    """What a run has filmed, or is to film.

    Attributes:
        run: the directory of the run.
        checkpoint: who plays; of the run.
        tasks: which of its tasks.
        rules: how.
        experts: whom it learnt from, by task; empty where nobody is to be seen beside it.
        temperature: at which Q-values are shown as a policy.
    """

    run: Path
    checkpoint: Checkpoint
    tasks: Sequence[str]
    rules: Rules
    experts: Mapping[str, Checkpoint] = field(default_factory=dict)
    temperature: float = TEMPERATURE

    def missing(self) -> list[Plan]:
        """The films that are not there, or of other players or rules."""
        return [plan for plan in self._plans() if not self._is_there(plan)]

    def make(
        self, plans: Sequence[Plan], compute: Compute, *, stop: Callable[[], int | None]
    ) -> Iterator[Record]:
        """Films the plans, one after another.

        Args:
            plans: of `missing`.
            compute: where the networks run.
            stop: asked after every step; the number of a signal, or None.

        Yields:
            Records of kind ``film``, whose steps run on from film to film: each takes
            ``rules.max_steps``, however early its games end.

        Raises:
            Interrupted: if a stop was asked for; films that were finished stay.
            UnavailableError, UsageError, DataError, CannotCreateError, StorageError: as
                `record_film`.
        """
        directory = self.run / FILMS
        try:
            directory.mkdir(exist_ok=True)
        except OSError as error:
            raise CannotCreateError(f"cannot make {directory}: {error}") from error
        clean_leftovers(directory)
        begun = time.monotonic()
        try:
            for number, plan in enumerate(plans):
                for record in self._film(plan, compute, stop):
                    step = record.step + number * self.rules.max_steps
                    yield replace(record, step=step, wall_s=time.monotonic() - begun)
        finally:
            with suppress(OSError):  # it is empty only if nothing could be filmed
                directory.rmdir()

    def _plans(self) -> Iterator[Plan]:
        kind = self.checkpoint.kind
        mine = {task: Role(kind, task, self.checkpoint) for task in self.tasks}
        for task, role in mine.items():
            yield Plan(slug(task), (role,))
        for task, expert in self.experts.items():
            who = "teacher" if expert.kind == kind else "expert"
            yield Plan(slug(task) + BESIDE, (mine[task], Role(who, task, expert)))
        if len(mine) > 1:
            yield Plan(GRID, tuple(mine.values()))

    def _is_there(self, plan: Plan) -> bool:
        if not (self.run / FILMS / f"{plan.name}.mp4").is_file():
            return False
        try:
            content = read_run_json(self.run, f"{FILMS}/{plan.name}.json")
            shown = [(one["task"], one["model_sha256"]) for one in content["players"]]
            rules = content["rules"]
        except (DataError, KeyError, TypeError):
            return False
        wanted = [(role.task, role.checkpoint.model_sha256) for role in plan.roles]
        return (shown, rules) == (wanted, self._rules_json())

    def _film(
        self, plan: Plan, compute: Compute, stop: Callable[[], int | None]
    ) -> Iterator[Record]:
        path = self.run / FILMS / f"{plan.name}.mp4"
        several = len(plan.roles) > 1
        film = record_film(
            [self._player(role, compute) for role in plan.roles],
            [path],
            self.rules,
            max_bytes=FILM_BYTES_OF_SEVERAL if several else FILM_BYTES,
        )
        players: list[Played] = []
        for record, played in watch(film, self.rules, stop=stop):
            players = played
            yield record
        content = {
            "schema": SCHEMA_VERSION,
            "rules": self._rules_json(),
            "players": [asdict(one) for one in players],
        }
        try:
            replace_file(path.with_suffix(".json"), json_bytes(content))
        except OSError as error:
            raise StorageError(f"cannot write {path.with_suffix('.json')}: {error}") from error

    def _player(self, role: Role, compute: Compute) -> Player:
        teacher = load_teachers(role.checkpoint, [role.task], compute)[role.task]
        return Player(role.who, teacher, self.temperature)

    def _rules_json(self) -> dict[str, Any]:
        return asdict(self.rules) | {
            "protocol": self.rules.protocol.name,
            "temperature": self.temperature,
        }
