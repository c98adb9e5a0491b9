"""Verbs that look at what there is: evaluate, play, show, report, games, doctor.

Imports that need PyTorch wait until a verb runs, so that ``--help`` is there at once.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from actor_mimic.errors import ActorMimicError, DataError, UsageError
from actor_mimic.report.printable import printable, printable_facts
from actor_mimic.verbs.arguments import (
    CheckpointName,
    Device,
    Number,
    OptionalProbability,
    Protocol,
    Quiet,
    RunPath,
    Stop,
    Switch,
    Tasks,
    check_probability,
    check_task,
    checkpoint_argument,
    notice,
)

if TYPE_CHECKING:
    from actor_mimic.compute import Compute
    from actor_mimic.stages.run_films import RunFilms
    from actor_mimic.storage.checkpoint import Checkpoint


@dataclass(frozen=True)
class Evaluate:
    """Play whole games and report raw scores.

    For example:
      actor-mimic evaluate runs/expert-pong-pqn-0
      actor-mimic evaluate runs/student --tasks pong --episodes 100 --protocol sticky --json
      actor-mimic evaluate runs/student --films
      actor-mimic evaluate random --tasks pong boxing
      actor-mimic evaluate zoo:pong
    """

    checkpoint: Positional[CheckpointName]
    """A run (its last checkpoint; RUN@best for its best one), a checkpoint directory, zoo:NAME, or
    random."""
    tasks: Tasks = ()
    """Which tasks. Left out: all that the checkpoint plays."""
    episodes: Number = 30
    """Games per task."""
    protocol: Protocol = "paper"
    """How games start, and how noisy they are."""
    epsilon: OptionalProbability = None
    """Probability of a random action. Left out: 0.05 for paper, 0.01 for sticky."""
    seed: Number = 0
    """Of the games."""
    device: Device = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: Number = 0
    """CPU threads of PyTorch and of the emulators; 0 takes all cores."""
    films: Switch = False
    """Also film half a minute of every task, and of all in one, into films/ of the run."""
    json: Switch = False
    """Print one JSON object on standard output."""
    quiet: Quiet = False
    """Say nothing but errors."""

    def run(self) -> int:
        """Does it; returns the exit code."""
        from actor_mimic.compute import choose_compute
        from actor_mimic.progress import StageProgress
        from actor_mimic.protocols import protocol_named
        from actor_mimic.stages.evaluate import evaluation_json
        from actor_mimic.stages.films import Rules
        from actor_mimic.stages.measure import Measuring, claimed_score
        from actor_mimic.stages.players import player_of
        from actor_mimic.stages.run_films import FILM_STEPS, FILMS, RunFilms
        from actor_mimic.storage.shipped import RANDOM
        from actor_mimic.teachers.own import check_fits, load_teachers, tasks_in_file

        if self.episodes < 1:
            raise UsageError(f"--episodes must be at least 1, got {self.episodes}")
        protocol = protocol_named(self.protocol)
        epsilon = protocol.evaluation_epsilon if self.epsilon is None else self.epsilon
        check_probability("--epsilon", epsilon)
        checkpoint = None if self.checkpoint == RANDOM else checkpoint_argument(self.checkpoint)
        tasks = self.tasks or (() if checkpoint is None else tasks_in_file(checkpoint))
        if not tasks:
            raise UsageError("random plays anything: say which with --tasks")
        for task in tasks:
            check_task(task, checkpoint)
        if len(set(tasks)) < len(tasks):
            raise UsageError(f"--tasks: expected every task once, got {', '.join(tasks)}")
        run = None if checkpoint is None else checkpoint.run
        if self.films and run is None:
            raise UsageError(f"--films: {self.checkpoint} is no run that could keep them; see play")
        compute = choose_compute(self.device, threads=self.threads)
        compute.start()
        teachers = {} if checkpoint is None else load_teachers(checkpoint, tasks, compute)
        for teacher in teachers.values():
            check_fits(teacher)
        player = player_of(list(teachers.values()), compute.workers()) if teachers else None
        stop = Stop("stopping")
        with StageProgress("evaluate", 0) as progress:
            measuring = Measuring(
                directory=Path(),
                protocol=protocol,
                epsilon=epsilon,
                episodes=self.episodes,
                seed=self.seed,
                num_threads=compute.threads,
                stop=stop,
                on_game=progress.on_game,
            )
            played = dict(measuring.play(player, tasks, self.episodes))
        name = self.checkpoint if checkpoint is None else checkpoint.name
        shown = 1.0 if checkpoint is None else epsilon
        result = evaluation_json(name, protocol, shown, {task: played[task] for task in tasks})
        claimed = None if checkpoint is None else claimed_score(checkpoint)
        if claimed is not None:
            result["claimed_score"] = claimed
        if self.json:
            print(json.dumps(result))
        else:
            print(_score_table(result))
        if self.films and checkpoint is not None and run is not None:
            rules = Rules(protocol, epsilon, self.seed, FILM_STEPS)
            _film(RunFilms(run, checkpoint, tasks, rules), compute, stop)
            notice(f"films: {run / FILMS}")
        return 0


@dataclass(frozen=True)
class Show:
    """Say what a checkpoint is: task, step, network, parents, scores.

    For example:
      actor-mimic show runs/student
    """

    checkpoint: Positional[CheckpointName]
    """A run (its last checkpoint, or RUN@best), a checkpoint directory, or zoo:NAME."""
    json: Switch = False
    """Print one JSON object on standard output."""
    quiet: Quiet = False
    """Say nothing but errors."""

    def run(self) -> int:
        """Does it; returns the exit code."""
        from actor_mimic.teachers.own import count_stored_parameters

        checkpoint = checkpoint_argument(self.checkpoint)
        model = checkpoint.load_tensors("model")
        facts = {
            "path": str(checkpoint.path),
            "kind": checkpoint.kind,
            "step": checkpoint.step,
            "tasks": checkpoint.tasks,
            "parameters": count_stored_parameters(model),
            "model_sha256": checkpoint.model_sha256,
            "network": checkpoint.network,
            "protocol": checkpoint.manifest.get("protocol"),
            "parents": checkpoint.parents,
            "config": checkpoint.config,
            "versions": checkpoint.manifest.get("versions"),
            "scores": _kept_scores(checkpoint),
        }
        if "shipped" in checkpoint.manifest:
            facts["shipped"] = checkpoint.manifest["shipped"]
        if self.json:
            print(json.dumps(facts))
            return 0
        scores = facts.pop("scores")
        for line in printable_facts(facts):
            print(line)
        for result in scores:
            print(_score_table(result))
        return 0


@dataclass(frozen=True)
class Report:
    """Write a recipe's report.html again, from its records and films.

    For example:
      actor-mimic report runs/demo
      actor-mimic report runs/mine --allow-missing seaquest
    """

    path: Positional[RunPath]
    """The directory of a recipe's runs, or of one run."""
    allow_missing: Tasks = ()
    """Games that the numbers over all games may do without. Left out: where a game has no figure,
    there are no such numbers."""
    quiet: Quiet = False
    """Say nothing but errors."""

    def run(self) -> int:
        """Writes the page and prints its path."""
        from actor_mimic.report.page import write_report

        print(write_report(self.path, allow_missing=self.allow_missing, notice=notice))
        return 0


@dataclass(frozen=True)
class Games:
    """List the Atari games, with published random and human scores.

    For example:
      actor-mimic games
    """

    json: Switch = False
    """Print one JSON object on standard output."""
    quiet: Quiet = False
    """Say nothing but errors."""

    def run(self) -> int:
        """Does it; returns the exit code."""
        from actor_mimic.envs.atari import atari_games
        from actor_mimic.games import GAMES

        games = {game: GAMES.get(game) for game in atari_games()}
        if self.json:
            rows = {g: None if s is None else [s.random, s.human] for g, s in games.items()}
            print(json.dumps(rows))
            return 0
        print(f"{'game':22}{'random':>10}{'human':>10}")
        for game, scores in games.items():
            known = "" if scores is None else f"{scores.random:10.1f}{scores.human:10.1f}"
            print(f"{game:22}{known}")
        return 0


@dataclass(frozen=True)
class Doctor:
    """Say what this machine has: versions, device, precision, memory, ROMs.

    For example:
      actor-mimic doctor
    """

    json: Switch = False
    """Print one JSON object on standard output."""
    quiet: Quiet = False
    """Say nothing but errors."""

    def run(self) -> int:
        """Does it; returns the exit code."""
        from actor_mimic.compute import available_memory_bytes, choose_compute
        from actor_mimic.envs.atari import atari_games
        from actor_mimic.storage.run_dir import installed_versions

        compute = choose_compute()
        try:
            roms: int | str = len(atari_games())
        except ActorMimicError as error:
            roms = str(error)
        facts = {
            "versions": installed_versions(),
            "device": compute.device,
            "precision": compute.precision,
            "threads": compute.threads,
            "free_memory_gib": round(available_memory_bytes() / 2**30, 1),
            "atari_roms": roms,
        }
        if self.json:
            print(json.dumps(facts))
        else:
            for line in printable_facts(facts):
                print(line)
        return 0


def _film(films: "RunFilms", compute: "Compute", stop: Stop) -> None:
    """Makes those that are missing."""
    from actor_mimic.progress import StageProgress
    from actor_mimic.stages.run_films import FILM_STEPS

    missing = films.missing()
    with StageProgress("films", len(missing) * FILM_STEPS) as progress:
        for record in films.make(missing, compute, stop=stop):
            progress.show(record)


def _kept_scores(checkpoint: "Checkpoint") -> list[dict[str, Any]]:
    """What its run, or the zoo, measured of exactly these weights; empty if nothing."""
    from actor_mimic.storage.run_dir import read_run_json
    from actor_mimic.storage.shipped import RANDOM, read_scores, shipped_name

    if shipped_name(checkpoint.path):
        results = read_scores(checkpoint.path, *checkpoint.tasks)
        return [_figures(result) for result in results if result["checkpoint"] != RANDOM]
    if checkpoint.run is None:
        return []
    found = []
    for path in sorted((checkpoint.run / "evaluations").glob("*.json")):
        try:
            content = read_run_json(checkpoint.run, f"evaluations/{path.name}")
            if content["checkpoint"] == checkpoint.model_sha256:
                figures = _figures(content)
                _score_table(figures)
                found.append(figures)
        except (DataError, ValueError, LookupError, TypeError, AttributeError) as error:
            notice(f"{path} is not shown: {error}")
    return found


def _figures(result: dict[str, Any]) -> dict[str, Any]:
    """A kept result without the scores of single games."""
    tasks = {
        task: {name: value for name, value in scores.items() if name != "scores"}
        for task, scores in result["tasks"].items()
    }
    named = {"protocol": result["protocol"], "epsilon": result["epsilon"], "tasks": tasks}
    claimed = result.get("claimed_score")
    return named if claimed is None else named | {"claimed_score": claimed}


def _score_table(result: dict[str, Any]) -> str:
    """A line for each task, for people.

    Raises:
        KeyError, TypeError, ValueError, IndexError: if it is not what was once written.
    """
    from actor_mimic.report.tables import claim

    lines = [
        f"protocol {printable(result['protocol'])}, epsilon {result['epsilon']:g}",
        f"{'task':22}{'games':>6}{'mean':>12}{'stderr':>10}{'median':>12}{'human':>8}"
        "  95 % interval",
    ]
    claimed = result.get("claimed_score")
    for task, scores in result["tasks"].items():
        interval, stderr, human = scores["ci95"], scores["stderr"], scores["human_normalised"]
        lines.append(
            f"{printable(task):22}{scores['episodes']:6d}{scores['mean']:12.1f}"
            f"{'-' if stderr is None else format(stderr, '.1f'):>10}{scores['median']:12.1f}"
            f"{'-' if human is None else format(human, '.0%'):>8}"
            f"  {'-' if interval is None else f'[{interval[0]:.1f}, {interval[1]:.1f}]'}"
            f"{'' if claimed is None else claim(claimed, scores['mean'])}"
        )
    return "\n".join(lines)
