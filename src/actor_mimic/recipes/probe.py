"""How long a recipe will take: each kind of stage is run for two seconds and thrown away."""

import dataclasses
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path

from actor_mimic.compute import Compute
from actor_mimic.config import (
    DistillConfig,
    ExpertConfig,
    MultitaskDQNConfig,
    NetworkConfig,
    SeveralTasks,
    TransferConfig,
)
from actor_mimic.envs.make import make_envs
from actor_mimic.envs.vector_step import closed_on_error, observation_shape
from actor_mimic.errors import Interrupted
from actor_mimic.learner_config import DQNConfig
from actor_mimic.networks.q_network import QNetwork
from actor_mimic.networks.torsos import TorsoSpec
from actor_mimic.networks.working_copy import lower
from actor_mimic.protocols import protocol_named
from actor_mimic.recipes.recipe import Job, Parent, Recipe, Stage
from actor_mimic.seeding import torch_generator
from actor_mimic.stages.configured import torso_spec
from actor_mimic.stages.distill import DistillState
from actor_mimic.stages.env_groups import make_task_envs
from actor_mimic.stages.expert import expert_state, fresh_network
from actor_mimic.stages.lockstep import make_all_envs
from actor_mimic.stages.multitask_dqn import MultitaskDQNState
from actor_mimic.stages.space import observation_of
from actor_mimic.stages.training import LearningState
from actor_mimic.storage.checkpoint import find_checkpoints, resolve_checkpoint
from actor_mimic.storage.run_dir import is_complete
from actor_mimic.tasks import is_atari
from actor_mimic.teachers.teacher import Teacher

Learning = ExpertConfig | TransferConfig | DistillConfig | MultitaskDQNConfig

REPLAY_STEPS = 20_000  # of a probe: what is measured is speed
LONG_FIRST_S = 30.0  # a first update that takes so long is measurement enough


@dataclass(frozen=True)
class Prediction:
    """What is left of one repetition of a stage.

    Attributes:
        title: stage and seed.
        steps_left: steps to its end.
        steps_per_s: as probed; None where there is nothing to train.
    """

    title: str
    steps_left: int
    steps_per_s: float | None

    @property
    def hours(self) -> float:
        """Of training, without evaluations."""
        return self.steps_left / self.steps_per_s / 3600 if self.steps_per_s else 0.0


def predict(
    recipe: Recipe,
    jobs: Iterable[Job],
    compute: Compute,
    *,
    seconds: float,
    stop: Callable[[], int | None],
) -> list[Prediction]:
    """Probes each kind of stage that is not done, once for all that differ only in name.

    Args:
        recipe: for the networks of parents.
        jobs: of the recipe.
        compute: where it will run.
        seconds: of each probe, after its first update.
        stop: asked often; the number of a signal, or None.

    Raises:
        Interrupted: if it was stopped.
        UsageError: if there is no such task.
        UnavailableError: if what the task needs is not installed.
    """
    rates: dict[Hashable, float] = {}
    predictions = []
    for job in jobs:
        if is_complete(job.path):
            continue
        config = job.config
        if not isinstance(config, Learning):
            predictions.append(Prediction(job.title, 0, None))
            continue
        left = max(0, config.total_steps - _steps_done(job.path))
        own = network_of(recipe, job.stage)
        teachers = [_network_of_parent(recipe, p) for p in job.stage.teachers.values()]
        key = _key(config, own, teachers)
        if key not in rates:
            rates[key] = _measure(_build(config, own, teachers, compute), seconds, stop)
        predictions.append(Prediction(job.title, left, rates[key]))
    return predictions


def describe(predictions: Iterable[Prediction]) -> str:
    """The predictions as a table for the terminal."""
    rows = list(predictions)
    width = max([len("stage"), *(len(row.title) for row in rows)])
    lines = [f"{'stage':{width}}  {'steps left':>13}  {'steps/s':>9}  {'hours':>7}"]
    for row in rows:
        rate = "-" if row.steps_per_s is None else f"{row.steps_per_s:,.0f}"
        hours = "-" if row.steps_per_s is None else f"{row.hours:.2f}"
        lines.append(f"{row.title:{width}}  {row.steps_left:>13,}  {rate:>9}  {hours:>7}")
    total = sum(row.hours for row in rows)
    lines.append(f"predicted: {total:.1f} hours of training; evaluations come on top")
    return "\n".join(lines)


def network_of(recipe: Recipe, stage: Stage) -> NetworkConfig:
    """The network that a learning stage trains: its own, or its parent's."""
    assert isinstance(stage.config, Learning)
    if stage.kind == "transfer" and stage.parent is not None:
        return _network_of_parent(recipe, stage.parent)
    network = stage.config.network
    if isinstance(stage.config, SeveralTasks):
        # What `auto` is for a student, it would not be for the expert that begins as one.
        spec = torso_spec(network, observation_of(stage.config.tasks[0]), shared=True)
        network = dataclasses.replace(network, network=spec.kind)
    return network


def _network_of_parent(recipe: Recipe, parent: Parent) -> NetworkConfig:
    if parent.stage is not None:
        return network_of(recipe, recipe.stage(parent.stage))
    assert parent.path is not None
    checkpoint = resolve_checkpoint(parent.path, which="best" if parent.best else "newest")
    if "torso" not in checkpoint.network:
        # An import; most are of this size, and only their speed is asked for here.
        return NetworkConfig(width=1.0, norm="none")
    spec = TorsoSpec.from_json(checkpoint.network["torso"])
    return NetworkConfig(spec.kind, spec.width, spec.norm, spec.centred)


def _key(
    config: Learning,
    network: NetworkConfig,
    teachers: list[NetworkConfig],
) -> Hashable:
    """What the speed depends on. All Atari games count as equally fast."""
    tasks = (config.task,) if isinstance(config, ExpertConfig | TransferConfig) else config.tasks
    worlds = tuple("atari" if is_atari(task) else task for task in tasks)
    if isinstance(config, DistillConfig):
        sizes = (config.envs_per_task, config.batch_size_per_task, config.samples_per_step)
        kinds = (config.actor, config.optimizer, config.feature_weight > 0.0)
        return (worlds, network, tuple(teachers), sizes, kinds)
    head = config.head if isinstance(config, MultitaskDQNConfig) else ""
    return (worlds, network, config.learner, head)


def _build(
    config: Learning,
    network: NetworkConfig,
    teachers: list[NetworkConfig],
    compute: Compute,
) -> LearningState:
    # A background takes longer to be seen than is measured here, and 3 % of a step to be read.
    config = dataclasses.replace(config, network=dataclasses.replace(network, centred=False))
    if isinstance(config, DistillConfig):
        config = dataclasses.replace(
            config,
            learning_starts_steps=min(config.learning_starts_steps, 8 * config.envs_per_task),
            replay_capacity_steps=_replay_steps(config.replay_capacity_steps, config.envs_per_task),
        )
        made = zip(config.tasks, teachers, strict=True)
        return DistillState(config, compute, [_stand_in(t, n, config, compute) for t, n in made])
    learner = config.learner
    if isinstance(learner, DQNConfig):
        starts = (learner.n_step + 12) * learner.num_envs
        learner = dataclasses.replace(
            learner,
            learning_starts_steps=min(learner.learning_starts_steps, starts),
            replay_capacity_steps=_replay_steps(learner.replay_capacity_steps, learner.num_envs),
        )
        config = dataclasses.replace(config, learner=learner)
    if isinstance(config, MultitaskDQNConfig):
        envs = make_all_envs(config, config.learner.num_envs, compute)
        with closed_on_error(envs):
            return MultitaskDQNState(config, compute, envs)
    envs = make_task_envs(config, compute)
    with closed_on_error(envs):
        return expert_state(config, compute, envs, fresh_network(config, envs[0]))


def _replay_steps(asked: int, num_envs: int) -> int:
    return min(asked, max(REPLAY_STEPS, 100 * num_envs))


def _stand_in(
    task: str, network: NetworkConfig, config: DistillConfig, compute: Compute
) -> Teacher:
    """A teacher of the right shape with random weights: as fast as the real one."""
    env = make_envs(
        task, num_envs=1, run_seed=0, protocol=protocol_named(config.protocol), num_threads=1
    )
    try:
        q_network = QNetwork(
            torso_spec(network, observation_shape(env)),
            len(env.action_names),
            generator=torch_generator(0, task, "probe"),
        )
        compute.place(q_network)
        lower(q_network)
        return Teacher(
            task=task,
            action_names=env.action_names,
            obs_shape=observation_shape(env),
            num_features=q_network.torso.num_features,
            model_sha256="probe",
            network=q_network,
            device=compute.device,
        )
    finally:
        env.close()


def _measure(state: LearningState, seconds: float, stop: Callable[[], int | None]) -> float:
    """Steps per second, after the first update where that did not take long by itself."""
    try:
        state.start(stop)
        started = time.monotonic()
        while state.updates == 0 and state.steps < state.total_steps:
            _advance(state, stop)
        warm, warm_steps = time.monotonic(), state.steps
        while _is_short(time.monotonic() - warm, warm - started, seconds):
            if state.steps >= state.total_steps:
                break
            _advance(state, stop)
        now = time.monotonic()
        if state.steps == warm_steps:
            return warm_steps / max(warm - started, 1e-9)
        return (state.steps - warm_steps) / max(now - warm, 1e-9)
    finally:
        state.close()


def _is_short(elapsed_s: float, first_s: float, wanted_s: float) -> bool:
    return elapsed_s < wanted_s and first_s < LONG_FIRST_S


def _advance(state: LearningState, stop: Callable[[], int | None]) -> None:
    signal_number = stop()
    if signal_number is not None:
        raise Interrupted(signal_number)
    state.advance()


def _steps_done(run: Path) -> int:
    found = find_checkpoints(run / "checkpoints")
    return int(found[-1].name.removeprefix("step-")) if found else 0
