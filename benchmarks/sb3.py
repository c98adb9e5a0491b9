"""Stable-Baselines3's DQN on Pong: how many steps per second, once it learns.

    .venv-sb3/bin/python benchmarks/sb3.py --envs 1 --seconds 8

Runs in a virtual environment of its own (``requirements-sb3.txt``; ``make bench`` makes it), sees
nothing of this project, and prints one line of JSON. `benchmarks.comparison` calls it in turn with
this project's DQN.

The same on both sides
    Pong without sticky actions, up to 30 no-ops and FIRE at reset, lost lives as ends of training
    episodes, clipped rewards, grey 84x84, 4 frames skipped and 4 stacked; the Nature network at
    full width without norms; one-step targets from one target network, renewed every 1,000 steps;
    Huber loss, gradients clipped to norm 10, Adam at 1e-4; 8 replayed samples per step; a replay
    of 100,000 steps, filled with 1,000 before learning starts; epsilon 0.01 throughout, as in nine
    tenths of a run (while epsilon is 1, SB3 never asks its network and would seem faster than it
    is); all cores; the clock runs for a fixed time after learning has started.

Free
    How many environments each side steps: SB3 is measured with 1 in its own process (its common
    set-up, train_freq 4) and with 8 in processes of their own (train_freq 1 with 2 updates: one
    update per 4 steps as before). Precision: SB3 computes in float32; ours takes bfloat16 where
    the processor multiplies it (``--precision float32`` makes them equal). How threads wait: SB3
    runs as PyTorch comes unless the user has set OMP_WAIT_POLICY. Preprocessing: each side's own.

Hyper-parameters of SB3 are those of RL Baselines3 Zoo for Atari, but for learning_starts (theirs
is 100,000) and the epsilon schedule, for the reasons above. The device is the CPU.
"""

import argparse
import json
import re
import resource
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import gymnasium
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack

BATCH_SIZE = 32
LEARNING_STARTS_STEPS = 1_000
WARM_STEPS = 1_100
VERSIONS = ("stable-baselines3", "torch", "numpy", "gymnasium", "ale-py", "opencv-python-headless")


def make_pong(**settings: Any) -> gymnasium.Env:
    """One emulator; the import registers it, in worker processes too."""
    import ale_py

    gymnasium.register_envs(ale_py)
    return gymnasium.make("PongNoFrameskip-v4", **settings)


class Clock(BaseCallback):
    """Counts steps and updates from the end of the warm-up until the time is over."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds
        self._started: tuple[float, int, int] | None = None
        self.elapsed_s = 0.0
        self.steps = 0
        self.updates = 0

    def _on_step(self) -> bool:
        now, updates = time.perf_counter(), self.model._n_updates
        if self._started is None:
            if self.num_timesteps >= WARM_STEPS:
                self._started = now, self.num_timesteps, updates
            return True
        began, steps_before, updates_before = self._started
        self.elapsed_s = now - began
        self.steps = self.num_timesteps - steps_before
        self.updates = updates - updates_before
        return self.elapsed_s < self._seconds


def make_model(num_envs: int) -> DQN:
    """The learner with its environments; one update per 4 steps whatever their number."""
    env = make_atari_env(
        make_pong,
        n_envs=num_envs,
        seed=0,
        vec_env_cls=DummyVecEnv if num_envs == 1 else SubprocVecEnv,
    )
    if num_envs == 1:
        steps_between, updates = 4, 1
    else:
        steps_between, updates = 1, num_envs // 4
    return DQN(
        "CnnPolicy",
        VecFrameStack(env, n_stack=4),
        learning_rate=1e-4,
        buffer_size=100_000,
        learning_starts=LEARNING_STARTS_STEPS,
        batch_size=BATCH_SIZE,
        train_freq=(steps_between, "step"),
        gradient_steps=updates,
        target_update_interval=1_000,
        exploration_initial_eps=0.01,
        exploration_final_eps=0.01,
        device="cpu",
        seed=0,
    )


def peak_memory_mib() -> float:
    """The most memory that this process has held; written again, for nothing of ours is here."""
    status = Path("/proc/self/status")
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.M) if status.exists() else None
    if found:
        return round(int(found[1]) / 1024, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 2**20, 1)


def measure(num_envs: int, seconds: float) -> dict[str, Any]:
    """Steps per second, and what they were measured with."""
    model, clock = make_model(num_envs), Clock(seconds)
    model.learn(total_timesteps=10_000_000, callback=clock)
    replay = model.replay_buffer
    held = replay.observations.nbytes + replay.next_observations.nbytes
    model.get_env().close()
    return {
        "steps_per_s": clock.steps / clock.elapsed_s,
        "steps": clock.steps,
        "updates": clock.updates,
        "samples_per_step": clock.updates * BATCH_SIZE / clock.steps,
        "num_envs": num_envs,
        "threads": torch.get_num_threads(),
        "peak_memory_mib": peak_memory_mib(),
        "full_replay_mib": round(held / 2**20, 1),
        "versions": {name: metadata.version(name) for name in VERSIONS},
    }


def main() -> int:
    """Measures and prints one line."""
    parser = argparse.ArgumentParser(description="Stable-Baselines3's DQN on Pong.")
    parser.add_argument("--envs", type=int, default=1, help="1, or a multiple of 4")
    parser.add_argument("--seconds", type=float, default=8.0)
    options = parser.parse_args()
    if options.envs != 1 and options.envs % 4:
        parser.error(f"--envs must be 1 or a multiple of 4, got {options.envs}")
    print(json.dumps(measure(options.envs, options.seconds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
