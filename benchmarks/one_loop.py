"""One learning loop of this project: steps per second, its parts alone, its peak of memory.

    python -m benchmarks.one_loop dqn
    python -m benchmarks.one_loop pqn-gpu --device cuda

Prints one line of JSON. The loop is a stage's own state object, advanced as the stage does it, but
without records, evaluations and checkpoints.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from actor_mimic.compute import Compute, choose_compute
from actor_mimic.config import DistillConfig, ExpertConfig
from actor_mimic.flat_config import build_config
from actor_mimic.networks.working_copy import lower
from actor_mimic.rollout import Rollout
from actor_mimic.stages.distill import DistillState
from actor_mimic.stages.env_groups import EnvGroups, make_task_envs
from actor_mimic.stages.expert import (
    DQNState,
    PQNState,
    expert_state,
    fresh_network,
)
from actor_mimic.teachers.teacher import Teacher
from benchmarks.options import add_options
from benchmarks.processes import peak_memory_mib
from benchmarks.timing import median_rate
from benchmarks.workloads import (
    WORKLOADS,
    batch_size,
    num_envs,
    samples_per_step,
)

State = PQNState | DQNState | DistillState
PART_SHARE = 1 / 8  # of the loop's time, for each part alone
SLICE_S = 0.25  # at least; of PQN a whole rollout, about a second


def make_state(config: ExpertConfig | DistillConfig, compute: Compute) -> State:
    """A stage before its first step; a student gets untrained teachers of its own shape."""
    if isinstance(config, ExpertConfig):
        envs = make_task_envs(config, compute)
        return expert_state(config, compute, envs, fresh_network(config, envs[0]))
    return DistillState(config, compute, [_teacher(game, config, compute) for game in config.tasks])


def _teacher(game: str, config: DistillConfig, compute: Compute) -> Teacher:
    like = config.network
    shape = {"width": like.width, "norm": like.norm, "centred": like.centred}
    expert = build_config("expert", {"task": game, "algorithm": "dqn", **shape})
    assert isinstance(expert, ExpertConfig)
    (env,) = make_task_envs(expert, compute)
    network = fresh_network(expert, env)
    env.close()
    compute.place(network)
    lower(network)
    return Teacher(
        task=game,
        action_names=env.action_names,
        obs_shape=(4, 84, 84),
        num_features=network.torso.num_features,
        model_sha256="",
        network=network,
        device=compute.device,
    )


def loop_speed(state: State, warm_steps: int, seconds: float) -> dict[str, float]:
    """How fast a stage's own loop is once it learns, and the steps and updates counted.

    ``steps_per_s`` is all steps over all time. ``median_steps_per_s`` is the median of slices of
    it, and goes with a floor, which is made of medians of single calls. Slices are the nearest to
    that which a loop allows. What is rare counts in neither, be it the machine's doing or the
    loop's own.

    The backgrounds stay at zero: to measure them takes seconds a game, and changes no speed.
    """
    _games_of(state).start()
    while state.steps < warm_steps:
        state.advance()
    before, updates, whole = state.steps, state.updates, time.perf_counter()
    rates: list[float] = []
    while (started := time.perf_counter()) - whole < seconds:
        steps = state.steps
        while time.perf_counter() - started < SLICE_S:
            state.advance()
        rates.append((state.steps - steps) / (time.perf_counter() - started))
    steps = state.steps - before
    return {
        "steps_per_s": steps / (time.perf_counter() - whole),
        "median_steps_per_s": statistics.median(rates),
        "steps": steps,
        "updates": state.updates - updates,
    }


def parts_alone(
    state: State, config: ExpertConfig | DistillConfig, seconds: float
) -> dict[str, float]:
    """Microseconds per step of the project's own emulation, acting and update, each alone.

    They are private members of the stages' states, reached into on purpose: nothing but a
    measurement needs them one by one. Emulation contains the stacking of frames and the resets,
    an update the drawing of its examples.
    """
    envs = num_envs(config)
    update, examples = _update_call(state, config)
    rates = {
        "emulation": median_rate(*_emulation_call(state, config), seconds),
        "acting": median_rate(_acting_call(state), envs, seconds),
        "update": median_rate(update, examples, seconds) / samples_per_step(config),
    }
    return {part: 1e6 / rate for part, rate in rates.items()}


def _games_of(state: State) -> EnvGroups | Rollout:
    return state._groups if isinstance(state, PQNState) else state._rollout


def _emulation_call(
    state: State, config: ExpertConfig | DistillConfig
) -> tuple[Callable[[], object], int]:
    """A call that steps all environments, in groups that do not wait, and how many steps it is."""
    if isinstance(state, PQNState):
        groups, steps = state._groups, state._settings.rollout_steps
    else:
        groups, steps = EnvGroups([state._rollout]), 1
    greedy = np.zeros(groups.rollouts[0].num_envs, dtype=np.int64)

    def send(group: int, _: int) -> None:
        groups.rollouts[group].send(greedy, 1.0)  # random actions, as in the floor

    def receive(group: int, _: int) -> None:
        groups.rollouts[group].recv()
        groups.rollouts[group].take_finished()

    return lambda: groups.play(steps, send, receive), num_envs(config) * steps


def _acting_call(state: State) -> Callable[[], object]:
    if isinstance(state, DistillState):
        return state._act_and_label
    if isinstance(state, PQNState):
        groups = [rollout.observations for rollout in state._groups.rollouts]
        workers, forward = state._workers, state._learner.forward
        return lambda: [
            workers.infer(lambda rows: forward(rows).scores, obs).argmax(dim=1).cpu()
            for obs in groups
        ]
    return state._greedy


def _update_call(
    state: State, config: ExpertConfig | DistillConfig
) -> tuple[Callable[[], object], int]:
    """A call that makes updates, and how many examples it trains."""
    if isinstance(state, DQNState):
        return state._update, batch_size(config)
    if isinstance(state, DistillState):
        batch = batch_size(config)
        # What one step adds to the samples due, so that every call makes exactly one update.
        added = samples_per_step(config) * num_envs(config)

        def learn() -> None:
            state._samples_due = batch - added
            state._learn()

        return learn, batch
    rollout = state._settings.rollout_steps * num_envs(config)
    last_values = torch.zeros(num_envs(config), device=state._compute.device)
    return (
        lambda: state._learner.update(state._trajectories, last_values, learning_rate=1e-6),
        rollout * state._settings.epochs,
    )


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one loop."""
    compute = choose_compute(options.device, options.precision)
    workload = WORKLOADS[name]
    compute.start()
    config = workload.config(options.game)
    assert isinstance(config, ExpertConfig | DistillConfig)
    state = make_state(config, compute)
    speed = loop_speed(state, workload.warm_steps, options.seconds)
    result = {
        **speed,
        "samples_per_step": speed["updates"] * batch_size(config) / speed["steps"],
        "num_envs": num_envs(config),
        "device": compute.device,
        "compiled": compute.compiled,
        "threads": compute.threads,
        "precision": compute.precision,
        "peak_memory_mib": peak_memory_mib(),
        "full_replay_mib": round(state.replay_bytes / 2**20, 1),
        "us_per_step": parts_alone(state, config, options.seconds * PART_SHARE),
    }
    state.close()
    return result


def main(arguments: list[str] | None = None) -> int:
    """Measures one loop and prints one line of JSON."""
    parser = argparse.ArgumentParser(description="One loop of this project, as a line of JSON.")
    parser.add_argument("name", choices=WORKLOADS)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    add_options(parser)
    options = parser.parse_args(arguments)
    print(json.dumps(measure(options.name, options)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
