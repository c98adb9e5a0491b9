"""Stage: play whole games greedily (but for a little epsilon) and say what was scored.

Every number that the library prints about how well something plays comes from here.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64, Shaped
from torch import Tensor

from actor_mimic.envs.make import make_envs
from actor_mimic.games import human_normalised
from actor_mimic.protocols import Protocol
from actor_mimic.rollout import Episode, Rollout
from actor_mimic.seeding import derive_seed, numpy_generator
from actor_mimic.statistics import summarise

MAX_EVALUATION_ENVS = 32

Act = Callable[[Shaped[Tensor, "envs ..."]], Int64[np.ndarray, " envs"]]
"""Observations on the CPU to greedy actions, as indices into the task's own actions."""


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
    """How many games each of at most 32 environments plays: 100 are 4, 4, 4, 4, 3, 3, ... 3.

    Fixed quotas, because taking the first games to finish, wherever they are played, would
    favour short ones; no more environments, because starting one takes a tenth of a second, and
    those that are done are emulated on until the last is.
    """
    num_envs = min(episodes, MAX_EVALUATION_ENVS)
    share, more = divmod(episodes, num_envs)
    return [share + 1] * more + [share] * (num_envs - more)


def play_games(
    act: Act,
    task: str,
    *,
    episodes: int,
    protocol: Protocol,
    epsilon: float,
    seed: int,
    num_threads: int,
) -> Generator[int | TaskScores]:
    """Plays a task; yields the number of finished games after every step, and the scores last.

    Args:
        act: the policy; it is asked where games of a quota are still going on.
        task: what to play.
        episodes: games to play to their end.
        protocol: how games start and how noisy they are.
        epsilon: probability of a random action at each step.
        seed: of the games and of epsilon.
        num_threads: C++ threads of the emulators.
    """
    quotas = episode_quotas(episodes)
    env = make_envs(
        task,
        num_envs=len(quotas),
        run_seed=derive_seed(seed, "evaluation"),
        protocol=protocol,
        num_threads=num_threads,
    )
    rollout = Rollout(
        [env],
        life_loss_is_terminal=False,
        rngs=[numpy_generator(seed, task, "evaluation")],
    )
    games: list[list[Episode]] = [[] for _ in quotas]
    try:
        rollout.start()
        while (playing := _unfinished(games, quotas)).any():
            actions = np.zeros(len(quotas), dtype=np.int64)
            actions[playing] = act(rollout.observations[torch.from_numpy(playing)])
            rollout.send(actions, epsilon)
            rollout.recv()
            for episode in rollout.take_finished():
                if len(games[episode.env]) < quotas[episode.env]:
                    games[episode.env].append(episode)
            yield sum(len(row) for row in games)
    finally:
        rollout.close()
    played = [game for row in games for game in row]
    yield summarise_scores(task, [game.score for game in played], [game.length for game in played])


def _unfinished(
    games: Sequence[Sequence[Episode]], quotas: Sequence[int]
) -> Bool[np.ndarray, " envs"]:
    """Which environments have games of their quota left."""
    return np.array([len(row) < quota for row, quota in zip(games, quotas, strict=True)])


def act_randomly(obs: Shaped[Tensor, "envs ..."]) -> Int64[np.ndarray, " envs"]:
    """The policy behind ``random``, to be played with epsilon 1, where its choice never counts."""
    return np.zeros(len(obs), dtype=np.int64)


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
