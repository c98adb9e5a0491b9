"""How fast the learning loops run, beside the floor: the sum of their parts in bare libraries.

    PYTHONPATH=src python -m benchmarks.loops [--seconds 8] [--game assault]

A loop cannot be faster than its emulation, its acting and its training done one after the other,
so that sum is the floor. The parts are measured with nothing but ale-py and PyTorch; the network
is written again here for that reason. Each loop and its floor are measured in turn, three times,
and the median ratio is what counts: a machine's speed drifts.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ale_py import AtariVectorEnv
from torch import nn

from actor_mimic.compute import Compute, choose_compute
from actor_mimic.config import build_config
from actor_mimic.networks.student import Student
from actor_mimic.stages.distill import DistillState
from actor_mimic.stages.expert import expert_state, fresh_network, make_task_envs
from actor_mimic.stages.training import LearningState
from actor_mimic.storage.run_dir import installed_versions
from actor_mimic.teachers.teacher import Teacher

REPEATS = 3


def rate(action: Callable[[], Any], items: int, seconds: float) -> float:
    """Items per second of an action, after one call to warm up."""
    action()
    started, calls = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        action()
        calls += 1
    return items * calls / (time.perf_counter() - started)


def bare_network(width: float, norm: str, outputs: int) -> nn.Module:
    """The Nature network with layer norm, without this project."""
    a, b, hidden = round(32 * width), round(64 * width), round(512 * width)

    def normed(channels: int) -> list[nn.Module]:
        return [nn.GroupNorm(1, channels)] if norm == "all" else []

    return nn.Sequential(
        *[nn.Conv2d(4, a, 8, 4), *normed(a), nn.ReLU()],
        *[nn.Conv2d(a, b, 4, 2), *normed(b), nn.ReLU()],
        *[nn.Conv2d(b, b, 3, 1), *normed(b), nn.ReLU()],
        nn.Flatten(),
        nn.Linear(b * 49, hidden),
        *([nn.LayerNorm(hidden)] if norm != "none" else []),
        nn.ReLU(),
        nn.Linear(hidden, outputs),
    )


class Parts:
    """Steps, forward passes and training examples per second, each alone."""

    def __init__(self, game: str, compute: Compute, width: float, norm: str, seconds: float):
        self._game = game
        self._compute = compute
        self._network = bare_network(width, norm, 18)
        self._seconds = seconds
        self._low = compute.precision == "bfloat16"

    def _scaled(self, obs: torch.Tensor) -> torch.Tensor:
        return obs.to(torch.bfloat16 if self._low else torch.float32) / 255

    def emulation(self, num_envs: int) -> float:
        """Environment steps per second of ale-py alone."""
        env = AtariVectorEnv(
            self._game,
            num_envs=num_envs,
            num_threads=self._compute.threads,
            stack_num=1,
            reward_clipping=False,
            life_loss_info=True,
        )
        env.reset(seed=0)
        actions = np.zeros(num_envs, dtype=np.int64)
        result = rate(lambda: env.step(actions), num_envs, self._seconds)
        env.close()
        return result

    def acting(self, batch: int) -> float:
        """Observations per second, forward only."""
        obs = torch.randint(0, 256, (batch, 4, 84, 84), dtype=torch.uint8)

        @torch.no_grad()
        def act() -> None:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._low):
                self._network(self._scaled(obs))

        return rate(act, batch, self._seconds)

    def training(self, batch: int) -> float:
        """Examples per second: forward, backward, clipping, Adam."""
        obs = torch.randint(0, 256, (batch, 4, 84, 84), dtype=torch.uint8)
        optimizer = torch.optim.Adam(self._network.parameters(), lr=1e-4)

        def step() -> None:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._low):
                loss = self._network(self._scaled(obs)).float().square().mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self._network.parameters(), 10.0)
            optimizer.step()

        return rate(step, batch, self._seconds)


def loop_rate(state: LearningState, warm_steps: int, seconds: float) -> float:
    """Steps per second of a stage's own loop, once it learns."""
    state.start()
    while state.steps < warm_steps:
        state.advance()
    started, before = time.perf_counter(), state.steps
    while time.perf_counter() - started < seconds:
        state.advance()
    result = (state.steps - before) / (time.perf_counter() - started)
    state.close()
    return result


def pqn(game: str, compute: Compute, seconds: float) -> tuple[float, float]:
    """Steps per second of the expert stage with PQN, and of its floor."""
    config = build_config("expert", {"task": game})
    learner, network = config.learner, config.network
    env = make_task_envs(config, compute)
    state = expert_state(config, compute, env, fresh_network(config, env))
    loop = loop_rate(state, learner.num_envs * learner.rollout_steps, seconds)
    parts = Parts(game, compute, network.width, network.norm, seconds / 3)
    cost = (
        1 / parts.emulation(learner.num_envs)
        + 1 / parts.acting(learner.num_envs)
        + learner.epochs / parts.training(learner.minibatch_size)
    )
    return loop, 1 / cost


def dqn(game: str, compute: Compute, seconds: float) -> tuple[float, float]:
    """Steps per second of the expert stage with DQN, and of its floor."""
    values = {"task": game, "algorithm": "dqn", "learning_starts_steps": 1_000}
    config = build_config("expert", values)
    learner, network = config.learner, config.network
    env = make_task_envs(config, compute)
    state = expert_state(config, compute, env, fresh_network(config, env))
    loop = loop_rate(state, 1_200, seconds)
    parts = Parts(game, compute, network.width, network.norm, seconds / 3)
    samples = learner.batch_size / learner.update_every_steps
    cost = (
        1 / parts.emulation(learner.num_envs)
        + 1 / parts.acting(learner.num_envs)
        + samples / parts.training(learner.batch_size)
        + 2 * samples / parts.acting(learner.batch_size)  # target and double
    )
    return loop, 1 / cost


def distill(game: str, compute: Compute, seconds: float) -> tuple[float, float]:
    """Steps per second of distillation from one teacher of the student's size, and of its floor."""
    config = build_config("distill", {"tasks": [game], "learning_starts_steps": 500})
    env = make_task_envs(
        build_config("expert", {"task": game, "num_envs": 1, "minibatch_size": 32}), compute
    )
    teacher_network = fresh_network(build_config("expert", {"task": game}), env)
    compute.place(teacher_network)
    teacher = Teacher(
        task=game,
        action_names=env.action_names,
        obs_shape=(4, 84, 84),
        num_features=teacher_network.torso.num_features,
        model_sha256="",
        network=teacher_network,
        device=compute.device,
    )
    env.close()
    state = DistillState(config, compute, [teacher])
    assert isinstance(state.network, Student)
    loop = loop_rate(state, 600, seconds)
    parts = Parts(game, compute, config.network.width, config.network.norm, seconds / 3)
    cost = (
        1 / parts.emulation(config.envs_per_task)
        + 2 / parts.acting(config.envs_per_task)  # student and teacher
        + config.samples_per_step / parts.training(config.batch_size_per_task)
    )
    return loop, 1 / cost


def processor() -> str:
    """The processor's name, where the system tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


LOOPS = {"pqn": pqn, "dqn": dqn, "distill": distill}


def main(arguments: list[str] | None = None) -> int:
    """Measures every loop and prints one line for each."""
    parser = argparse.ArgumentParser(description="Learning loops beside their floors.")
    parser.add_argument("--seconds", type=float, default=8.0, help="time for each loop")
    parser.add_argument("--game", default="assault")
    options = parser.parse_args(arguments)
    compute = choose_compute("cpu")
    compute.start()
    results: dict[str, Any] = {}
    print(f"{compute.threads} threads, {compute.precision}, {options.game}, medians of {REPEATS}")
    print(f"{'loop':10}{'steps/s':>10}{'floor':>10}{'ratio':>8}")
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in LOOPS}
    for _ in range(REPEATS):
        for name, measure in LOOPS.items():
            measured[name].append(measure(options.game, compute, options.seconds))
    for name, pairs in measured.items():
        loop = statistics.median(pair[0] for pair in pairs)
        floor = statistics.median(pair[1] for pair in pairs)
        ratio = statistics.median(pair[0] / pair[1] for pair in pairs)
        print(f"{name:10}{loop:10.0f}{floor:10.0f}{ratio:8.2f}")
        results[name] = {"steps_per_s": loop, "floor": floor, "ratio": ratio, "all": pairs}
    target = Path(__file__).parent / "results" / "loops.json"
    target.parent.mkdir(exist_ok=True)
    facts = {
        "command": "python -m benchmarks.loops",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {"processor": processor(), "threads": compute.threads},
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "precision": compute.precision,
        "versions": installed_versions(),
        "game": options.game,
        "loops": results,
    }
    target.write_text(json.dumps(facts, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    main()
