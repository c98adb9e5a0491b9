"""A run on Weights & Biases: the same tags as everywhere, and the settings beside them.

The library is asked for only when a run is to be tracked. Its own variables say the rest:
``WANDB_MODE=offline`` keeps the run in its directory until ``wandb sync``, ``WANDB_API_KEY`` and
``WANDB_ENTITY`` say whose it is.
"""

from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from actor_mimic.errors import DataError, StorageError, UnavailableError
from actor_mimic.storage.durable import json_bytes, parse_json, read_regular, replace_file
from actor_mimic.storage.metric_names import named_values
from actor_mimic.storage.records import Record

TRACKED = "wandb.json"
STEPS = "global_step"

NOTHING = (-1, 0)
# What it would take along unasked: scripts, the diff of a repository, what is printed.
SETTINGS = {
    "save_code": False,
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "console": "off",
}

# At one step a run is trained, then evaluated, then measured.
_ORDER = ("train", "evaluation", "final")


class WandbRun:
    """Follows the records of a run; see `Follower`.

    What has been sent is kept in ``wandb.json``, so a run that is resumed, or tracked from the
    middle on, sends every step once. Code, the state of a git repository and console output are
    not sent.

    Args:
        directory: of the run.
        project: its name there.
        config: plain data, to be shown beside the run.

    Raises:
        UnavailableError: if wandb is not installed, or refuses, as it does without a key.
        DataError: if ``wandb.json`` is damaged.
    """

    def __init__(self, directory: Path, project: str, config: Mapping[str, Any]) -> None:
        try:
            wandb = import_module("wandb")
        except ImportError as error:
            raise UnavailableError(
                "--track needs wandb, which is not installed; install it with: "
                "pip install 'actor-mimic[wandb]'"
            ) from error
        self._path = directory / TRACKED
        self._project = project
        run_id, self._sent = self._read() if self._path.exists() else (None, NOTHING)
        try:
            self._run = wandb.init(
                project=project,
                id=run_id,
                name=str(directory),
                dir=str(directory),
                config=dict(config),
                resume="allow",
                settings=wandb.Settings(**SETTINGS),
            )
        # Its errors have no base of their own; all of them mean that there is no run.
        except Exception as error:
            raise UnavailableError(
                f"Weights & Biases: {error}; log in with `wandb login`, or set WANDB_MODE=offline"
            ) from error
        self._run.define_metric("*", step_metric=STEPS)

    def restart(self, records: Iterable[Record]) -> None:
        """Sends what is on record and has not been sent.

        Raises:
            StorageError: as `write`.
        """
        for record in records:
            self.write(record)

    def write(self, record: Record) -> None:
        """Sends the numbers of a record, if they have not been sent.

        Raises:
            StorageError: if it cannot be noted that they have.
        """
        values = named_values(record)
        if not values:
            return
        place = (record.step, _ORDER.index(record.kind))
        if place <= self._sent:
            return
        self._run.log({**values, STEPS: record.step})
        self._sent = place
        content = {"id": self._run.id, "project": self._project, "sent": list(place)}
        try:
            replace_file(self._path, json_bytes(content))
        except OSError as error:
            raise StorageError(f"cannot write {self._path}: {error}") from error

    def close(self) -> None:
        """Waits until everything has been sent."""
        self._run.finish()

    def _read(self) -> tuple[str, tuple[int, int]]:
        content = parse_json(read_regular(self._path, max_bytes=10_000), path=self._path)
        try:
            step, order = content["sent"]
            if type(content["id"]) is str and type(step) is type(order) is int:
                return content["id"], (step, order)
        except (KeyError, TypeError, ValueError):
            pass
        raise DataError(f"{self._path}: expected which run is tracked, got {content!r:.100}")
