"""Final figures: many games, measured once per weights and protocol, kept beside the run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from actor_mimic.errors import Interrupted, StorageError
from actor_mimic.protocols import Protocol
from actor_mimic.stages.evaluate import (
    Act,
    TaskScores,
    act_randomly,
    evaluation_json,
    play_games,
)
from actor_mimic.storage.durable import json_bytes, replace_file
from actor_mimic.storage.run_dir import read_run_json, slug

RANDOM = "random"
EVALUATIONS = "evaluations"


@dataclass(frozen=True)
class Measuring:
    """How games are played for a figure, and where figures are kept.

    Attributes:
        directory: the run whose ``evaluations/`` takes the results.
        protocol: how games start and how noisy they are.
        epsilon: probability of a random action; ignored by random play, which always is.
        episodes: games of a final figure.
        seed: of the games.
        num_threads: C++ threads of the emulators.
        stop: asked after every step; the number of a signal, or None.
        on_game: told the task, the games finished and the games to play.
    """

    directory: Path
    protocol: Protocol
    epsilon: float
    episodes: int
    seed: int
    num_threads: int
    stop: Callable[[], int | None]
    on_game: Callable[[str, int, int], None]

    def play(self, act: Act | None, task: str, episodes: int) -> TaskScores:
        """Plays; None plays at random.

        Raises:
            Interrupted: if a stop was asked for.
        """
        games = play_games(
            act or act_randomly,
            task,
            episodes=episodes,
            protocol=self.protocol,
            epsilon=self.epsilon if act else 1.0,
            seed=self.seed,
            num_threads=self.num_threads,
        )
        finished = -1
        for progress in games:
            if isinstance(progress, TaskScores):
                return progress
            if progress != finished:
                finished = progress
                self.on_game(task, finished, episodes)
            signal_number = self.stop()
            if signal_number is not None:
                games.close()
                raise Interrupted(signal_number)
        raise AssertionError("play_games ends with the scores")


def measure(
    act: Act | None,
    name: str,
    task: str,
    measuring: Measuring,
    *,
    also_look_in: Path | None = None,
) -> TaskScores:
    """The scores of some weights in one task: looked up, or played and kept.

    Args:
        act: the policy; None plays at random.
        name: sha256 of the weights, or ``random``; with task, protocol, epsilon and number of
            games it names the result.
        task: what to play.
        measuring: how, and where results are kept.
        also_look_in: another run that may have measured the same already.
    """
    epsilon = measuring.epsilon if act else 1.0
    parts = [name[:16], slug(task), measuring.protocol.name, f"{epsilon:g}", measuring.episodes]
    file_name = f"{EVALUATIONS}/{'-'.join(str(part) for part in parts)}.json"
    target = measuring.directory / file_name
    if target.exists():
        result = read_run_json(measuring.directory, file_name)
        return TaskScores.from_json(result["tasks"][task])
    if also_look_in is not None and (also_look_in / file_name).exists():
        result = read_run_json(also_look_in, file_name)
    else:
        scores = measuring.play(act, task, measuring.episodes)
        result = evaluation_json(name, measuring.protocol, epsilon, {task: scores})
    try:
        target.parent.mkdir(exist_ok=True)
        replace_file(target, json_bytes(result))
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error}") from error
    return TaskScores.from_json(result["tasks"][task])


def score_values(task: str, scores: TaskScores) -> dict[str, float | int | str | None]:
    """One task's scores as the values of a record."""
    low, high = scores.ci95 or (None, None)
    return {
        f"{task}/mean": scores.mean,
        f"{task}/median": scores.median,
        f"{task}/stderr": scores.stderr,
        f"{task}/ci95_low": low,
        f"{task}/ci95_high": high,
        f"{task}/episodes": scores.episodes,
        f"{task}/human_normalised": scores.human_normalised,
    }
