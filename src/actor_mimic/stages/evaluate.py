"""Stage: play whole games greedily (but for a little epsilon) and say what was scored.

Every number that the library prints about how well something plays comes from here.
"""

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from actor_mimic.envs.make import make_envs
from actor_mimic.envs.vector_step import closed_on_error
from actor_mimic.games import human_normalised
from actor_mimic.protocols import Protocol
from actor_mimic.rollout import Episode, Rollout
from actor_mimic.seeding import derive_seed, numpy_generator
from actor_mimic.statistics import summarise

MAX_EVALUATION_ENVS = 32

Act = Callable[[Mapping[str, Shaped[Tensor, "_ ..."]]], Mapping[str, Int64[np.ndarray, " _"]]]
"""Observations by task, on the CPU, to greedy actions, as indices into the task's own actions."""


@dataclass(frozen=True)
class TaskScores:
    """What one policy scored in one task.

    Attributes:
        episodes: games played to their end.
        mean, median, stderr: of the raw scores; the standard error is None for one game.
        ci95: 95 % percentile-bootstrap interval of the mean, or None for one game.
        human_normalised: 0 at random play, 1 at the published human; None where no such score
            is published.
        scores: every game's raw score.
        mean_steps: length of the games; None where it was not kept.
    """

    episodes: int
    mean: float
    median: float
    stderr: float | None
    ci95: tuple[float, float] | None
    human_normalised: float | None
    scores: tuple[float, ...]
    mean_steps: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "TaskScores":
        """The inverse of `to_json`."""
        ci95 = data["ci95"]
        return TaskScores(
            **{
                **data,
                "ci95": None if ci95 is None else (ci95[0], ci95[1]),
                "scores": tuple(data["scores"]),
            }
        )


def summarise_scores(task: str, scores: Sequence[float], lengths: Sequence[int] = ()) -> TaskScores:
    """Mean, median, error and interval of raw scores; the bootstrap's seed is fixed.

    Args:
        task: what was played.
        scores: of every game.
        lengths: of every game, in steps, if they are known.
    """
    summary = summarise(np.asarray(scores, dtype=np.float64), seed=0)
    return TaskScores(
        episodes=summary.episodes,
        mean=summary.mean,
        median=summary.median,
        stderr=summary.stderr,
        ci95=summary.ci95,
        human_normalised=human_normalised(task, summary.mean),
        scores=tuple(float(score) for score in scores),
        mean_steps=sum(lengths) / len(lengths) if lengths else None,
    )


def episode_quotas(episodes: int) -> list[int]:
    """How many games each of at most 32 environments plays: 100 are 25 times 4.

    Fixed quotas, because taking the first games to finish, wherever they are played, would
    favour short ones. No more environments than the longest quota needs, because starting one takes
    a tenth of a second, and those that are done are emulated on until the last is.
    """
    longest = math.ceil(episodes / MAX_EVALUATION_ENVS)
    num_envs = math.ceil(episodes / longest)
    share, more = divmod(episodes, num_envs)
    return [share + 1] * more + [share] * (num_envs - more)


def play_games(
    act: Act,
    tasks: Sequence[str],
    *,
    episodes: int,
    protocol: Protocol,
    epsilon: float,
    seed: int,
    num_threads: int,
) -> Generator[dict[str, int | TaskScores]]:
    """Plays tasks side by side; yields after every step what there is of each, the scores last.

    The policy sees all tasks at once, and while the last long games of one are played out, in a few
    environments, the others have theirs full (decision 13). Each task has its own games and its own
    random numbers. What a network makes of a row depends, in its last digits, on the rows beside
    it: two calls give the same games if they play the same tasks.

    Args:
        act: the policy; it is asked where games of a quota are still going on.
        tasks: what to play, each once.
        episodes: games of each to play to their end.
        protocol: how games start and how noisy they are.
        epsilon: probability of a random action at each step.
        seed: of the games and of epsilon.
        num_threads: C++ threads of the emulators, of each task.

    Yields:
        By task the number of finished games or, once all are, its scores.
    """
    games: dict[str, _Games] = {}
    with closed_on_error(games.values()):
        for task in tasks:
            games[task] = _Games(task, episodes, protocol, seed, num_threads)
            games[task].start()
            yield dict.fromkeys(tasks, 0)  # emulators take a tenth of a second each to start
        going_on = games
        while going_on:
            actions = act({task: played.observations() for task, played in going_on.items()})
            for task, played in going_on.items():
                played.send(actions[task], epsilon)
            for played in going_on.values():
                played.recv()
            yield {task: played.progress() for task, played in games.items()}
            going_on = {task: played for task, played in games.items() if played.scores is None}


class _Games:
    """The games of one task, and which environments have games of their quota left.

    Its arguments are those of `play_games`. ``scores`` is None until all games have been played;
    then the environments are closed.
    """

    def __init__(
        self, task: str, episodes: int, protocol: Protocol, seed: int, num_threads: int
    ) -> None:
        self._task = task
        self._quotas = episode_quotas(episodes)
        self._played: list[list[Episode]] = [[] for _ in self._quotas]
        self._playing = np.ones(len(self._quotas), dtype=bool)
        self.scores: TaskScores | None = None
        self._is_closed = False
        env = make_envs(
            task,
            num_envs=len(self._quotas),
            run_seed=derive_seed(seed, "evaluation"),
            protocol=protocol,
            num_threads=num_threads,
        )
        self._rollout = Rollout(
            [env],
            life_loss_is_terminal=False,
            rngs=[numpy_generator(seed, task, "evaluation")],
        )

    def start(self) -> None:
        """Resets the environments."""
        self._rollout.start()

    def observations(self) -> Shaped[Tensor, "envs ..."]:
        """A copy of what the environments show that have games left."""
        # Not by a mask: that takes fifteen times as long.
        rows = torch.from_numpy(np.flatnonzero(self._playing))
        return self._rollout.observations.index_select(0, rows)

    def send(self, actions: Int64[np.ndarray, " envs"], epsilon: float) -> None:
        """Starts a step with actions for what `observations` gave; the others are idle."""
        of_all = np.zeros(len(self._quotas), dtype=np.int64)
        of_all[self._playing] = actions
        self._rollout.send(of_all, epsilon)

    def recv(self) -> None:
        """Waits for the step, and takes in the games that it ended."""
        self._rollout.recv()
        for episode in self._rollout.take_finished():
            row = self._played[episode.env]
            if len(row) < self._quotas[episode.env]:
                row.append(episode)
                self._playing[episode.env] = len(row) < self._quotas[episode.env]
        if not self._playing.any():
            games = [game for row in self._played for game in row]
            scores, lengths = zip(*((game.score, game.length) for game in games), strict=True)
            self.scores = summarise_scores(self._task, scores, lengths)
            self.close()

    def progress(self) -> int | TaskScores:
        """How many have been played to their end, or the scores of all."""
        return sum(map(len, self._played)) if self.scores is None else self.scores

    def close(self) -> None:
        """Closes the environments, unless they are."""
        if not self._is_closed:
            self._is_closed = True
            self._rollout.close()


def act_randomly(
    obs: Mapping[str, Shaped[Tensor, "_ ..."]],
) -> dict[str, Int64[np.ndarray, " _"]]:
    """The policy behind ``random``, to be played with epsilon 1, where its choice never counts."""
    return {task: np.zeros(len(own), dtype=np.int64) for task, own in obs.items()}


def expert_normalised(
    scores: Mapping[str, float], experts: Mapping[str, float], randoms: Mapping[str, float]
) -> float:
    """Mean over games of (score - random) / (expert - random).

    A game whose expert is no better than random play has no scale, and contributes 0.
    """
    ratios = [
        (scores[task] - randoms[task]) / (experts[task] - randoms[task])
        if experts[task] > randoms[task]
        else 0.0
        for task in scores
    ]
    return float(np.mean(ratios))


def mean_score(scores: Mapping[str, float]) -> float:
    """Mean over tasks of human-normalised scores; of raw ones, if one has no published human.

    The sum of raw scores, by which the authors' code chooses its best network, is that of the one
    game with the largest numbers.
    """
    normalised = [human_normalised(task, score) for task, score in scores.items()]
    known = [score for score in normalised if score is not None]
    return float(np.mean(known if len(known) == len(scores) else list(scores.values())))


def evaluation_json(
    checkpoint: str, protocol: Protocol, epsilon: float, tasks: Mapping[str, TaskScores]
) -> dict[str, Any]:
    """The object that ``evaluate --json`` prints; ``evaluations/*.json`` say more beside it."""
    return {
        "checkpoint": checkpoint,
        "protocol": protocol.name,
        "epsilon": epsilon,
        "tasks": {task: scores.to_json() for task, scores in tasks.items()},
    }
