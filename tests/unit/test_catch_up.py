"""Environments that were given a state play on to it: side by side, and until a signal comes."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from actor_mimic.envs.gymnasium import GymnasiumEnvs
from actor_mimic.envs.make import make_envs
from actor_mimic.envs.vector_step import catch_up_all
from actor_mimic.errors import Interrupted


class Behind(GymnasiumEnvs):
    """Its games take so many steps to play again."""

    def __init__(self, name: str, steps: int, told: list[str]) -> None:
        super().__init__("gym:CartPole-v1", num_envs=1, run_seed=0)
        self.name, self.steps, self.told = name, steps, told

    def catch_up(self) -> Iterator[None]:
        for _ in range(self.steps):
            self.told.append(f"{self.name} sends")
            yield
            self.told.append(f"{self.name} receives")


def test_tasks_play_side_by_side() -> None:
    """While one's emulators compute, those of the others are sent to work."""
    told: list[str] = []
    envs = [Behind("a", 2, told), Behind("b", 0, told), Behind("c", 1, told)]

    catch_up_all(envs)

    assert told == [
        "a sends", "c sends", "a receives", "a sends", "c receives", "a receives",
    ]  # fmt: skip


def test_what_no_state_was_loaded_into_stays() -> None:
    envs = [make_envs(task, num_envs=1, run_seed=0) for task in ("pong", "gym:CartPole-v1")]
    for env in envs:
        env.reset()
    before = [env.state_dict() for env in envs]
    catch_up_all(envs)

    assert [env.state_dict() for env in envs] == before
    for env in envs:
        env.close()


def test_a_signal_ends_it() -> None:
    """Where what the handler raises finds it: else that would take as long as the games."""

    def leave(number: int, _frame: Any) -> None:
        raise Interrupted(number)

    before = signal.signal(signal.SIGUSR1, leave)
    envs = [make_envs(task, num_envs=2, run_seed=0) for task in ("pong", "boxing")]
    for env in envs:
        env.reset()
        for _ in range(20):
            env.send(np.zeros(2, dtype=np.int64))
            env.recv()
        state = env.state_dict()
        state["actions"] = [actions * 20_000 for actions in state["actions"]]  # for minutes
        env.load_state_dict(state)
    began = time.monotonic()
    alarm = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGUSR1))
    alarm.start()
    try:
        with pytest.raises(Interrupted):
            catch_up_all(envs)
    finally:
        alarm.join()
        signal.signal(signal.SIGUSR1, before)
    for env in envs:
        env.close()

    assert 0.4 < time.monotonic() - began < 20.0
