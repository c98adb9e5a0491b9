"""The verb that films: play.

Imports that need PyTorch wait until a verb runs, so that ``--help`` is there at once.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from actor_mimic.errors import UsageError
from actor_mimic.verbs.arguments import (
    CheckpointName,
    Device,
    Number,
    OptionalPath,
    OptionalProbability,
    OptionalTask,
    Protocol,
    Quiet,
    Stop,
    check_probability,
    check_task,
    checkpoint_argument,
    notice,
    numeric,
)

if TYPE_CHECKING:
    from actor_mimic.compute import Compute
    from actor_mimic.stages.films import Played, Player
    from actor_mimic.storage.checkpoint import Checkpoint


@dataclass(frozen=True)
class Play:
    """Film a game: the picture in colour, under it the probability of each action as a bar.

    The film has the first game that evaluate --episodes 1 plays with the same options. It runs in
    real time: 15 steps a second of an Atari game.

    For example:
      actor-mimic play zoo:pong --video pong.mp4
      actor-mimic play runs/student --task pong --video pong.mp4 --beside zoo:pong
      actor-mimic play runs/student --video all-games.mp4
      actor-mimic play runs/student --task pong --gif pong.gif --max-steps 300
    """

    checkpoint: Positional[CheckpointName]
    """A run (its last checkpoint, or RUN@best), a checkpoint directory, or zoo:NAME."""
    video: OptionalPath = None
    """The MP4 file to write (H.264, plays in every browser)."""
    gif: OptionalPath = None
    """The GIF file to write, instead or also."""
    task: OptionalTask = None
    """Which game. Left out: all that the checkpoint plays, several in a grid."""
    beside: Annotated[
        CheckpointName | None, arg(name="beside", metavar="CHECKPOINT", help_behavior_hint="")
    ] = None
    """Who else plays it with the same seed, shown at the right. Left out: nobody."""
    protocol: Protocol = "paper"
    """How the game starts, and how noisy it is."""
    epsilon: OptionalProbability = None
    """Probability of a random action. Left out: 0.05 for paper, 0.01 for sticky."""
    temperature: Annotated[float, numeric(float, "T", "a number")] = 0.1
    """Q-values are shown as softmax(Q / T). A student's logits are a policy as they are."""
    seed: Number = 0
    """Of the game."""
    max_steps: Number = 2_700
    """The film ends here if the game does not: after three minutes of an Atari game."""
    device: Device = "auto"
    """auto, cpu, cuda or cuda:N."""
    quiet: Quiet = False
    """Say nothing but errors."""

    def run(self) -> int:
        """Does it; returns the exit code."""
        from actor_mimic.compute import choose_compute
        from actor_mimic.progress import StageProgress
        from actor_mimic.protocols import protocol_named
        from actor_mimic.stages.films import Rules, record_film, watch

        protocol = protocol_named(self.protocol)
        epsilon = protocol.evaluation_epsilon if self.epsilon is None else self.epsilon
        paths = self._check(epsilon)
        checkpoint = checkpoint_argument(self.checkpoint)
        tasks = self._tasks(checkpoint)
        compute = choose_compute(self.device)
        compute.start()
        players = self._players(self.checkpoint, checkpoint, tasks, compute)
        if self.beside is not None:
            other = checkpoint_argument(self.beside)
            check_task(tasks[0], other)
            players += self._players(self.beside, other, tasks, compute)
        rules = Rules(protocol, epsilon, self.seed, self.max_steps)
        watched = watch(
            record_film(players, paths, rules), rules, stop=Stop("stopping; there will be no film")
        )
        last: list[Played] = []
        with StageProgress(f"film {', '.join(tasks)}", self.max_steps) as progress:
            for record, played in watched:
                progress.show(record)
                last = played
        for one in last:
            ending = "" if one.over else ", not over yet"
            notice(f"{one.task}, {one.who}: score {one.score:g} in {one.steps:,} steps{ending}")
        for path in paths:
            print(path)
        return 0

    def _check(self, epsilon: float) -> list[Path]:
        """The files to write, once all options make sense."""
        check_probability("--epsilon", epsilon)
        if self.max_steps < 1:
            raise UsageError(f"--max-steps must be at least 1, got {self.max_steps}")
        if not (self.temperature > 0.0 and math.isfinite(self.temperature)):
            raise UsageError(f"--temperature must be positive, got {self.temperature}")
        given = {".mp4": self.video, ".gif": self.gif}
        paths = {suffix: path for suffix, path in given.items() if path is not None}
        if not paths:
            raise UsageError("say which file to write: --video FILE.mp4, --gif FILE.gif, or both")
        for suffix, path in paths.items():
            option = "--video" if suffix == ".mp4" else "--gif"
            if path.suffix.lower() != suffix:
                raise UsageError(f"{option} must name a {suffix} file, got {path}")
            if not path.parent.is_dir():
                raise UsageError(f"{option}: there is no directory {path.parent}")
        return list(paths.values())

    def _tasks(self, checkpoint: "Checkpoint") -> tuple[str, ...]:
        from actor_mimic.teachers.own import tasks_in_file

        if self.task is not None:
            check_task(self.task, checkpoint)
            return (self.task,)
        tasks = tasks_in_file(checkpoint)
        if self.beside is not None and len(tasks) > 1:
            raise UsageError(f"--beside: say which game with --task: {', '.join(tasks)}")
        return tasks

    def _players(
        self, name: str, checkpoint: "Checkpoint", tasks: tuple[str, ...], compute: "Compute"
    ) -> list["Player"]:
        from actor_mimic.stages.films import Player
        from actor_mimic.teachers.own import check_fits, load_teachers

        who = name if name.startswith("zoo:") else Path(name).name
        teachers = load_teachers(checkpoint, tasks, compute)
        for teacher in teachers.values():
            check_fits(teacher)
        return [Player(who, teachers[task], self.temperature) for task in tasks]
