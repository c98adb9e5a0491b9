"""Final figures: many games, measured once per weights and protocol, kept beside the run."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actor_mimic.compute import Workers
from actor_mimic.errors import DataError, Interrupted, StorageError
from actor_mimic.protocols import Protocol
from actor_mimic.stages.evaluate import (
    Act,
    TaskScores,
    act_randomly,
    evaluation_json,
    play_games,
)
from actor_mimic.stages.players import player_of
from actor_mimic.storage.checkpoint import Checkpoint
from actor_mimic.storage.durable import json_bytes, make_directory, replace_file
from actor_mimic.storage.records import Record
from actor_mimic.storage.run_dir import EVALUATIONS, installed_versions, read_run_json, slug
from actor_mimic.storage.shipped import PREFIX, RANDOM, name_of_model, read_shipped
from actor_mimic.teachers.callables import TeacherSource
from actor_mimic.teachers.teacher import Teacher

PLAYED_WITH = ("torch", "ale-py", "gymnasium", "numpy")  # packages that decide how games go


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
        on_game: told what is played, the games finished and the games to play.
    """

    directory: Path
    protocol: Protocol
    epsilon: float
    episodes: int
    seed: int
    num_threads: int
    stop: Callable[[], int | None]
    on_game: Callable[[str, int, int], None]

    def play(
        self, act: Act | None, tasks: Sequence[str], episodes: int
    ) -> Generator[tuple[str, TaskScores]]:
        """Plays tasks side by side, None at random; gives the scores of each as it is done.

        Raises:
            Interrupted: if a stop was asked for.
        """
        games = play_games(
            act or act_randomly,
            tasks,
            episodes=episodes,
            protocol=self.protocol,
            epsilon=self.epsilon if act else 1.0,
            seed=self.seed,
            num_threads=self.num_threads,
        )
        title = tasks[0] if len(tasks) == 1 else f"{len(tasks)} tasks"
        finished, done = -1, set[str]()
        with closing(games):
            for progress in games:
                now = sum(episodes if isinstance(p, TaskScores) else p for p in progress.values())
                if now != finished:
                    finished = now
                    self.on_game(title, finished, episodes * len(tasks))
                for task, scores in progress.items():
                    if isinstance(scores, TaskScores) and task not in done:
                        done.add(task)
                        yield task, scores
                signal_number = self.stop()
                if signal_number is not None and len(done) < len(tasks):
                    raise Interrupted(signal_number)


def measure(
    act: Act | None,
    name: str,
    tasks: Sequence[str],
    measuring: Measuring,
    *,
    also_look_in: Path | None = None,
    claimed: float | None = None,
) -> dict[str, TaskScores]:
    """The scores of some weights by task: looked up, or played and kept, each as it is done.

    What was played with other versions of `PLAYED_WITH` is played again. If anything is to be
    played, all tasks are, so that the games are those of a measurement that nobody stopped
    (`play_games`); what was kept stays.

    Args:
        act: the policy, not called if the scores are kept already; None plays at random.
        name: sha256 of the weights, or ``random``; with task, protocol, epsilon, number of games
            and seed it names the result.
        tasks: what to play, side by side.
        measuring: how, and where results are kept.
        also_look_in: another run that may have measured the same already.
        claimed: what somebody else says that these weights score; kept beside what they do.

    Raises:
        Interrupted: if a stop was asked for.
        DataError: if a kept result is damaged.
        StorageError: if the result cannot be kept.
    """
    epsilon = measuring.epsilon if act else 1.0
    how = (measuring.protocol.name, epsilon, measuring.episodes, measuring.seed)
    file_names = {task: _file_name(name, task, *how) for task in tasks}
    known = _all_kept(measuring.directory, file_names)
    others = {task: file for task, file in file_names.items() if task not in known}
    elsewhere = {} if also_look_in is None else _all_kept(also_look_in, others)

    def keep(task: str, scores: TaskScores) -> None:
        result = result_json(name, task, epsilon, measuring, scores)
        if claimed is not None:
            result["claimed_score"] = claimed
        _keep(measuring.directory, file_names[task], result)
        known[task] = scores

    for task, scores in elsewhere.items():
        keep(task, scores)
    if len(known) < len(tasks):
        with closing(measuring.play(act, tasks, measuring.episodes)) as played:
            for task, scores in played:
                if task not in known:
                    keep(task, scores)
    return {task: known[task] for task in tasks}


def result_json(
    name: str, task: str, epsilon: float, measuring: Measuring, scores: TaskScores
) -> dict[str, Any]:
    """What is kept of one measurement: the scores, and how they came about."""
    result = evaluation_json(name, measuring.protocol, epsilon, {task: scores})
    return result | {"seed": measuring.seed, "versions": _versions()}


def _file_name(
    name: str, task: str, protocol: str, epsilon: float, episodes: int, seed: int
) -> str:
    parts = [name[:16], slug(task), protocol, f"{epsilon:g}", episodes, seed]
    return f"{EVALUATIONS}/{'-'.join(map(str, parts))}.json"


def _keep(run: Path, file_name: str, result: Mapping[str, Any]) -> None:
    target = run / file_name
    try:
        make_directory(target.parent)
        replace_file(target, json_bytes(result))
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error}") from error


def _versions() -> dict[str, str | None]:
    installed = installed_versions()
    return {package: installed[package] for package in PLAYED_WITH}


def _all_kept(run: Path, file_names: Mapping[str, str]) -> dict[str, TaskScores]:
    """What a run has of some results, by task."""
    found = {task: _kept(run, name, task) for task, name in file_names.items()}
    return {task: scores for task, scores in found.items() if scores is not None}


def _kept(run: Path, file_name: str, task: str) -> TaskScores | None:
    """A result that was kept in a run; None if there is none, or it was played otherwise."""
    if not (run / file_name).exists():
        return None
    result = read_run_json(run, file_name)
    try:
        if result.get("versions") != _versions():
            return None
        return TaskScores.from_json(result["tasks"][task])
    except (AttributeError, KeyError, TypeError, IndexError) as error:
        raise DataError(
            f"{run / file_name}: expected the scores of {task}, got {result!r:.100}"
        ) from error


def _shipped(who: str, teacher: Teacher, measuring: Measuring) -> TaskScores | None:
    """What a shipped expert, or random play in its task, was measured at when it was shipped.

    On other games than a run's, and no fewer of them. It is kept in the run like what is played
    there: a report reads no other place. None if the teacher is not shipped, or was measured
    otherwise or with other versions.

    Args:
        who: the teacher's model_sha256, or ``random``.
        teacher: whose task is played.
        measuring: how games would be played.
    """
    expert = name_of_model(teacher.model_sha256)
    if expert is None:
        return None
    shipped, protocol = read_shipped(expert.removeprefix(PREFIX)), measuring.protocol.name
    if who == RANDOM:
        result = shipped.random_play(protocol)
    else:
        result = shipped.evaluation(protocol, measuring.epsilon)
    if result is None or result.get("versions") != _versions():
        return None
    scores = TaskScores.from_json(result["tasks"][teacher.task])
    if scores.episodes < measuring.episodes:
        return None
    how = (protocol, result["epsilon"], scores.episodes, result["seed"])
    _keep(measuring.directory, _file_name(who, teacher.task, *how), result)
    return scores


def claimed_score(source: TeacherSource) -> float | None:
    """What an import's author says that it scores; None if nothing is known."""
    claimed = source.config.get("claimed_score") if isinstance(source, Checkpoint) else None
    return float(claimed) if isinstance(claimed, int | float) else None


def measure_references(
    loaded: Sequence[Teacher],
    checkpoints: Mapping[str, TeacherSource],
    measuring: Measuring,
    workers: Workers,
) -> Iterator[Record]:
    """Scores of every teacher and of random play in its task, as records.

    They are played, or looked up: in the run itself, in the teacher's, or in the zoo.
    """
    if not measuring.episodes:
        return
    for teacher in loaded:
        task = teacher.task
        home, claimed = checkpoints[task].run, claimed_score(checkpoints[task])
        for who, name, act in (
            ("teacher", teacher.model_sha256, player_of([teacher], workers)),
            (RANDOM, RANDOM, None),
        ):
            known = claimed if who == "teacher" else None
            scores = _shipped(name, teacher, measuring)
            if scores is None:
                found = measure(act, name, [task], measuring, also_look_in=home, claimed=known)
                scores = found[task]
            values = {"who": who, "task": task} | score_values(task, scores)
            if known is not None:
                values |= {f"{task}/claimed": known, f"{task}/drop": known - scores.mean}
            yield Record("measure", 0, 0, values, 0.0)


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
        f"{task}/mean_steps": scores.mean_steps,
        f"{task}/human_normalised": scores.human_normalised,
    }
