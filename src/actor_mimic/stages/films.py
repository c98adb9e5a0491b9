"""Films of policies at play, in the games' own colours, with the policy as bars under them.

A film is the first game of an evaluation: whoever evaluates one game with the same seed, protocol
and epsilon (``evaluate --episodes 1``) gets its score. Every picture in it is one that the policy
saw: a twin of the emulator plays the same game in colour, in lockstep.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from actor_mimic.config import DistillConfig
from actor_mimic.envs.make import make_envs
from actor_mimic.envs.vector_step import VectorEnv
from actor_mimic.errors import DataError, Interrupted
from actor_mimic.protocols import Protocol
from actor_mimic.report.film_panel import LARGE, SMALL, Panel, Sheet, Shot
from actor_mimic.rollout import Rollout
from actor_mimic.seeding import derive_seed, numpy_generator
from actor_mimic.storage.film_file import BUFFER_S, FilmFile
from actor_mimic.storage.records import Record, Value
from actor_mimic.teachers.teacher import Teacher

TEMPERATURE = DistillConfig.temperature  # at which Q-values are shown as a policy
LAST_PICTURE_S = 1.0  # that it stays, for the score to be read
MOST_LARGE = 2  # of more players than these the panels are small


@dataclass(frozen=True)
class Player:
    """Somebody who plays in a film.

    Attributes:
        who: shown over the picture.
        teacher: the policy; it plays the one task that it knows.
        temperature: Q-values are shown as softmax(Q / temperature); logits are a policy already.
    """

    who: str
    teacher: Teacher
    temperature: float = TEMPERATURE


@dataclass(frozen=True)
class Rules:
    """How the games of a film are played.

    Attributes:
        protocol: how they start and how noisy they are.
        epsilon: probability of a random action at each step.
        seed: of the games and of epsilon, the same for every player.
        max_steps: the film ends here if the games do not.
    """

    protocol: Protocol
    epsilon: float
    seed: int
    max_steps: int


@dataclass(frozen=True)
class Played:
    """How far a player has come: raw score, and length in steps."""

    who: str
    task: str
    model_sha256: str
    score: float
    steps: int
    over: bool


def record_film(
    players: Sequence[Player],
    paths: Sequence[Path],
    rules: Rules,
    *,
    max_bytes: int | None = None,
) -> Generator[list[Played]]:
    """Plays games until all are over and films them; yields how far they are, step by step.

    Closed before its end, it leaves no film.

    Args:
        players: one or two are shown large, side by side; more are small, in a grid. Those of the
            same task begin in the same state and are given the same random actions.
        paths: ``.mp4`` or ``.gif``, all of the same film; existing files are replaced.
        rules: how they play.
        max_bytes: an MP4 becomes coarser where it would, by and large, be larger than this.

    Raises:
        UnavailableError: if a library that draws, compresses or plays is not installed.
        UsageError: if a task cannot be filmed.
        DataError: if a player was made for other actions than its task has, or knows no finite
            scores for them.
        CannotCreateError, StorageError: if a film cannot be written.
    """
    with ExitStack() as opened:
        games = [opened.enter_context(_Game(player, rules)) for player in players]
        rate = min(game.env.steps_per_s for game in games)
        sheet = _sheet(games)
        limit = None
        if max_bytes is not None:
            longest_s = rules.max_steps / rate + LAST_PICTURE_S
            limit = int(8 * max_bytes / (longest_s + BUFFER_S))
        files = [
            opened.enter_context(
                FilmFile(path, size=sheet.size, pictures_per_s=rate, max_bits_per_s=limit)
            )
            for path in paths
        ]

        def film(pictures: int) -> None:
            picture = sheet.draw([game.shot for game in games])
            for file in files:
                for _ in range(pictures):
                    file.write(picture)

        for _ in range(rules.max_steps):
            for game in games:
                game.advance()
            film(1)
            yield [game.played for game in games]
            if all(game.played.over for game in games):
                break
        for game in games:
            game.settle()
        film(round(LAST_PICTURE_S * rate))


def watch(
    film: Generator[list[Played]], rules: Rules, *, stop: Callable[[], int | None]
) -> Iterator[tuple[Record, list[Played]]]:
    """Runs a film to its end, unless it is to stop.

    Args:
        film: of `record_film`.
        rules: its rules.
        stop: asked after every step; the number of a signal, or None.

    Yields:
        After every step a record of kind ``film``, and how far everybody has come.

    Raises:
        Interrupted: if a stop was asked for; there is no film then.
        Exception: what `record_film` raises.
    """
    begun = time.monotonic()
    with closing(film):
        for played in film:
            signal_number = stop()
            if signal_number is not None:
                raise Interrupted(signal_number)
            elapsed_s = time.monotonic() - begun
            steps = max(one.steps for one in played)
            values: dict[str, Value] = {"steps_per_s": steps / max(elapsed_s, 1e-9)}
            values |= {f"{one.task} ({one.who})/score": one.score for one in played}
            over = all(one.over for one in played)
            step = rules.max_steps if over else steps
            yield Record("film", step, 0, values, elapsed_s), played


def policy_of(
    scores: Float[Tensor, " actions"], temperature: float
) -> Float64[np.ndarray, " actions"]:
    """Probabilities of the actions, softmax(scores / temperature); they sum to 1."""
    return torch.softmax(scores.double().cpu() / temperature, dim=0).numpy()


class _Game:
    """One player's game, decision by decision; closes its emulators when it is left.

    Attributes:
        shot: the last decision: what the player saw, its policy, what was done, the score before.
        played: how far it is after that.
    """

    shot: Shot

    def __init__(self, player: Player, rules: Rules) -> None:
        teacher = player.teacher
        self.player = player
        self._epsilon = rules.epsilon
        # Of an evaluation the first environment and its first episode: see the module.
        self.env: VectorEnv = make_envs(
            teacher.task,
            num_envs=1,
            run_seed=derive_seed(rules.seed, "evaluation"),
            protocol=rules.protocol,
            with_picture=True,
        )
        self._rollout = Rollout(
            [self.env],
            life_loss_is_terminal=False,
            rngs=[numpy_generator(rules.seed, teacher.task, "evaluation")],
        )
        self.played = Played(player.who, teacher.task, teacher.model_sha256, 0.0, 0, over=False)

    def __enter__(self) -> "_Game":
        try:
            names = self.player.teacher.action_names
            if names != self.env.action_names:
                raise DataError(
                    f"{self.player.who} was made for the actions {', '.join(names)}; "
                    f"{self.env.task} has {', '.join(self.env.action_names)}"
                )
            self._rollout.start()
            self.picture_size = self.env.picture().shape[1::-1]
        except BaseException:
            self._rollout.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._rollout.close()

    def advance(self) -> None:
        """Plays one step, or shows how it ended."""
        if self.played.over:
            self.settle()
            return
        teacher, before = self.player.teacher, self.played
        picture = self.env.picture()
        scores = teacher.label(self._rollout.observations).scores
        if not bool(torch.isfinite(scores).all()):
            raise DataError(f"{before.who}: expected finite scores in {before.task}, got {scores}")
        self._rollout.send(scores.argmax(dim=1).cpu().numpy(), self._epsilon)
        (transition,) = self._rollout.recv()
        temperature = 1.0 if teacher.scores_are_logits else self.player.temperature
        self.shot = Shot(
            picture,
            policy_of(scores[0], temperature),
            int(transition.actions[0]),
            before.score,
            before.steps,
        )
        finished = self._rollout.take_finished()
        self.played = dataclasses.replace(
            before,
            score=finished[0].score if finished else float(self._rollout.scores[0]),
            steps=before.steps + 1,
            over=bool(finished),
        )

    def settle(self) -> None:
        """Shows how far it came, over the last picture that the player saw."""
        played = self.played
        self.shot = dataclasses.replace(
            self.shot, score=played.score, step=played.steps, over=played.over
        )


def _sheet(games: Sequence[_Game]) -> Sheet:
    """Two large panels side by side, or small ones in a grid that is about square."""
    size = LARGE if len(games) <= MOST_LARGE else SMALL
    panels = [
        Panel(
            (game.picture_size[0], game.picture_size[1]),
            task=game.env.task,
            who=game.player.who,
            actions=game.env.action_names,
            size=size,
        )
        for game in games
    ]
    columns = len(games) if size is LARGE else math.ceil(math.sqrt(len(games)))
    return Sheet(panels, columns)
