"""Verbs that spend steps: train-expert, distill, multitask-dqn, transfer, run.

Imports that need PyTorch wait until a verb runs, so that ``--help`` is there at once.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import OmitArgPrefixes, Positional

from actor_mimic.config import NETWORK_SETTINGS, DistillConfig, TransferConfig
from actor_mimic.errors import ConfigError, DataError, UsageError
from actor_mimic.flat_config import to_json
from actor_mimic.presets import DEFAULT_PRESETS
from actor_mimic.verbs.arguments import (
    CheckpointName,
    Compiled,
    Device,
    Number,
    OptionalAlgorithm,
    OptionalDistillPreset,
    OptionalHead,
    OptionalMultitaskHead,
    OptionalMultitaskPreset,
    OptionalPath,
    OptionalPreset,
    OptionalProbability,
    OptionalStudentHead,
    ProjectName,
    Quiet,
    Stop,
    Switch,
    Task,
    checkpoint_argument,
    named_value,
    notice,
)
from actor_mimic.verbs.foreign import check_features, check_foreign, teacher_argument
from actor_mimic.verbs.settings import describe_recipe
from actor_mimic.verbs.stage import Common, default_dir, print_config, read_stage, run_stage


@dataclass(frozen=True)
class TrainExpert:
    """Train a Q-network on one task.

    For example:
      actor-mimic train-expert pong
      actor-mimic train-expert pong --preset nature
      actor-mimic train-expert gym:CartPole-v1 --algorithm dqn --total-steps 50_000
      actor-mimic train-expert boxing --set width=1.0 --set learning_rate=1e-4
    """

    task: Positional[Task]
    """An Atari game (see: actor-mimic games), or gym: and a Gymnasium id."""
    common: OmitArgPrefixes[Common] = field(default_factory=Common)
    quiet: Quiet = False
    """Say nothing but errors."""
    preset: OptionalPreset = None
    """fast: PQN; classic: PQN for small tasks; gpu: PQN for a GPU and many cores; nature: the DQN
    of Mnih et al. (2015); sb3: that of Stable-Baselines3's zoo.
    Left out: fast for Atari, classic for other tasks; with --algorithm dqn none."""
    algorithm: OptionalAlgorithm = None
    """pqn: parallel environments, no replay; dqn: replay and target network. Left out: the
    preset's."""
    compiled: Compiled = "auto"
    """Compile the network into CUDA graphs: auto does so on a GPU; a CPU never does."""

    def run(self) -> int:
        """Does it; returns the exit code."""
        from actor_mimic.stages.launch import run_expert

        values = {"task": self.task, "preset": self.preset, "algorithm": self.algorithm}
        settings = read_stage("expert", values, self.common)
        config = to_json(settings.config)
        # Default presets go by the name of their algorithm.
        label = settings.preset
        if label is None or label in DEFAULT_PRESETS:
            label = str(config["algorithm"])
        path = self.common.run_dir or default_dir("expert", self.task, label, config["seed"])
        title = f"expert {self.task}"
        return run_stage(run_expert, settings, path, title, self.common, compiled=self.compiled)


@dataclass(frozen=True)
class Distill:
    """Teach one network several tasks from their teachers.

    For example:
      actor-mimic distill pong=runs/expert-pong-pqn-0 boxing=runs/expert-boxing-pqn-0
      actor-mimic distill pong=RUN boxing=RUN@best --set temperature=0.05
      actor-mimic distill pong=zoo:pong breakout=zoo:breakout
    """

    teachers: Positional[
        Annotated[
            tuple[str, ...],
            tyro.conf.arg(metavar="TASK=CHECKPOINT [TASK=CHECKPOINT ...]", help_behavior_hint=""),
        ]
    ]
    """Tasks and teachers: a run (its last checkpoint, or RUN@best), a checkpoint directory, or an
    expert that comes with the package (zoo:NAME; see: actor-mimic zoo); another library's file,
    which is imported into the run first (see: actor-mimic import); or MODULE:FUNCTION, a function
    of yours from observations to scores."""
    common: OmitArgPrefixes[Common] = field(default_factory=Common)
    quiet: Quiet = False
    """Say nothing but errors."""
    preset: OptionalDistillPreset = None
    """paper: the printed formulas and hyper-parameters; authors-code: the update that the released
    code makes. Left out: what suits few cores."""
    head: OptionalStudentHead = None
    """shared: tasks share the outputs of the actions that both have; per_task: every task has its
    own. Left out: shared."""

    def run(self) -> int:
        """Does it; returns the exit code."""
        if not self.teachers:
            raise UsageError("distill needs at least one teacher: TASK=CHECKPOINT")
        named = dict(named_value(text, "TASK=CHECKPOINT") for text in self.teachers)
        if len(named) != len(self.teachers):
            raise UsageError("every task needs exactly one teacher, a task was named twice")
        values = {"tasks": list(named), "preset": self.preset, "head": self.head}
        settings = read_stage("distill", values, self.common)
        config = settings.config
        assert isinstance(config, DistillConfig)
        path = self.common.run_dir or default_dir("student", *named, config.seed)
        if self.common.print_config:
            return print_config(settings, path, self.common, None)
        check_foreign(named.values())
        checkpoints = {t: teacher_argument(where, t, path) for t, where in named.items()}
        from actor_mimic.teachers.own import not_played

        for task, checkpoint in checkpoints.items():
            if task not in checkpoint.tasks:
                # Before a run directory is made for what can never begin.
                raise DataError(not_played(checkpoint.name, checkpoint.tasks, task))
        check_features(checkpoints, config.feature_weight)
        from actor_mimic.stages.launch import run_distill

        return run_stage(run_distill, settings, path, "student", self.common, checkpoints)


@dataclass(frozen=True)
class MultitaskDQN:
    """Train one network on several tasks by Q-learning, without teachers.

    The baseline of the paper: what the same network learns where nothing is distilled into it.

    For example:
      actor-mimic multitask-dqn pong boxing
      actor-mimic multitask-dqn pong boxing --head branched --preset nature
    """

    tasks: Positional[
        Annotated[tuple[str, ...], tyro.conf.arg(metavar="TASK [TASK ...]", help_behavior_hint="")]
    ]
    """Atari games, or gym: and Gymnasium ids."""
    common: OmitArgPrefixes[Common] = field(default_factory=Common)
    quiet: Quiet = False
    """Say nothing but errors."""
    preset: OptionalMultitaskPreset = None
    """As for train-expert, with its counts for each task. Left out: what suits few cores."""
    head: OptionalMultitaskHead = None
    """shared: tasks share everything, the outputs of the actions that both have included; per_task:
    every task has its own outputs; branched: its own hidden layers too, on shared convolutions.
    Left out: shared."""

    def run(self) -> int:
        """Does it; returns the exit code."""
        from actor_mimic.stages.launch import run_multitask_dqn

        if not self.tasks:
            raise UsageError("multitask-dqn needs at least one task")
        values = {"tasks": list(self.tasks), "preset": self.preset, "head": self.head}
        settings = read_stage("multitask-dqn", values, self.common)
        parts = ["multitask-dqn", *([self.head] if self.head else []), *self.tasks]
        path = self.common.run_dir or default_dir(*parts, settings.config.seed)
        return run_stage(run_multitask_dqn, settings, path, "multitask-dqn", self.common)


@dataclass(frozen=True)
class Transfer:
    """Train a Q-network on a new task from a student's or an expert's weights.

    For example:
      actor-mimic transfer breakout --from runs/student
      actor-mimic transfer breakout                    # random weights, to compare with
    """

    task: Positional[Task]
    """An Atari game, or gym: and a Gymnasium id."""
    common: OmitArgPrefixes[Common] = field(default_factory=Common)
    quiet: Quiet = False
    """Say nothing but errors."""
    from_: Annotated[
        CheckpointName | None,
        tyro.conf.arg(name="from", metavar="CHECKPOINT", help_behavior_hint=""),
    ] = None
    """A student or an expert: a run (or RUN@best), a checkpoint, zoo:NAME. Left out: random
    weights."""
    head: OptionalHead = None
    """fresh: a new output layer; copy: the outputs of the actions that both have. Left out:
    fresh."""
    preset: OptionalPreset = None
    """As for train-expert. Left out: none."""
    algorithm: OptionalAlgorithm = None
    """As for train-expert. Left out: the preset's, or dqn."""
    epsilon_start: OptionalProbability = None
    """Exploration at the first step; lower than 1 keeps more of what the weights know."""
    compiled: Compiled = "auto"
    """Compile the network into CUDA graphs: auto does so on a GPU; a CPU never does."""

    def run(self) -> int:
        """Does it; returns the exit code."""
        from actor_mimic.stages.launch import run_transfer
        from actor_mimic.stages.transfer import with_network_of

        values = {
            "task": self.task,
            "head": self.head,
            "preset": self.preset,
            "algorithm": self.algorithm,
            "epsilon_start": self.epsilon_start,
        }
        settings = read_stage("transfer", values, self.common)
        parent, arm = None, "random"
        if self.from_ is not None:
            _refuse_network(self.common)
            parent = checkpoint_argument(self.from_)
            arm = parent.model_sha256[:8]
            assert isinstance(settings.config, TransferConfig)
            config = with_network_of(settings.config, parent)
            settings = settings.taken_from(config, NETWORK_SETTINGS, "--from")
        seed = settings.config.seed
        path = self.common.run_dir or default_dir("transfer", self.task, arm, seed)
        title = f"transfer {self.task}"
        return run_stage(
            run_transfer, settings, path, title, self.common, parent, compiled=self.compiled
        )


@dataclass(frozen=True)
class Run:
    """Run a recipe: experts, student, transfer, table, report.

    For example:
      actor-mimic run demo
      actor-mimic run from-scratch
      actor-mimic run my-recipe.toml --run-dir runs/mine
      actor-mimic run my-recipe.toml --print-config
    """

    recipe: Positional[Annotated[str, tyro.conf.arg(metavar="RECIPE")]]
    """demo, from-scratch, small-transfer, paper-multitask, paper-transfer, zoo, or a TOML file."""
    run_dir: OptionalPath = None
    """Where its runs are kept. Left out: runs/RECIPE."""
    device: Device = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: Number = 0
    """CPU threads of PyTorch and of the emulators; 0 takes all cores."""
    yes: Switch = False
    """Start even if it is predicted to take more than 12 hours."""
    print_config: Switch = False
    """Print every setting of every stage with where its value came from, and do nothing."""
    track: Switch = False
    """Show the learning on Weights & Biases too (WANDB_MODE=offline: on this machine only)."""
    wandb_project_name: ProjectName = "actor-mimic"
    """With --track: the project there."""
    json: Switch = False
    """Print the result as one JSON object on standard output."""
    quiet: Quiet = False
    """Say nothing but errors."""

    def run(self) -> int:
        """Does it; returns the exit code."""
        from actor_mimic.progress import StageProgress
        from actor_mimic.recipes.load import load_recipe
        from actor_mimic.recipes.run import run_recipe
        from actor_mimic.report.page import write_report
        from actor_mimic.report.terminal import text_table

        recipe = load_recipe(self.recipe)
        if self.print_config:
            print(describe_recipe(recipe, as_json=self.json))
            return 0
        path = self.run_dir or Path("runs") / recipe.name
        stop = Stop()

        def show(title: str, total_steps: int) -> StageProgress:
            stop.rearm()
            return StageProgress(title, total_steps)

        result = run_recipe(
            recipe,
            path,
            device=self.device,
            threads=self.threads,
            yes=self.yes,
            stop=stop,
            show=show,
            notice=notice,
            track=self.wandb_project_name if self.track else "",
        )
        report = write_report(path)
        table = text_table(path)
        if self.json:
            notice(table)
            print(json.dumps(result))
        else:
            print(table)
        notice(f"report: {report}")
        return 0


def _refuse_network(common: Common) -> None:
    """The weights that a transfer starts from decide the shape of its network."""
    for text in common.set:
        name, _ = named_value(text, "NAME=VALUE")
        if name in NETWORK_SETTINGS:
            raise ConfigError(f"{name} with --from: the parent's weights decide the network")
