"""Environments that were given a state play on to it: side by side, and until a signal comes."""

import signal
from collections.abc import Iterator

import numpy as np
import pytest

from actor_mimic.envs.gymnasium import GymnasiumEnvs
from actor_mimic.envs.make import make_envs
from actor_mimic.envs.vector_step import EpisodeLog, catch_up_all
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


@pytest.mark.parametrize("task", ["pong", "gym:CartPole-v1"])
def test_only_what_was_loaded_is_played_again_and_once(task: str) -> None:
    env, twin = (make_envs(task, num_envs=1, run_seed=0) for _ in range(2))
    env.reset()
    env.send(np.zeros(1, dtype=np.int64))
    env.recv()
    twin.load_state_dict(env.state_dict())

    assert list(env.catch_up()) == []
    assert list(twin.catch_up()) == [None]  # a step, or an environment
    assert list(twin.catch_up()) == []
    for one in (env, twin):
        one.close()


def test_a_step_is_sent_before_another_tasks_turn_and_received_after_it() -> None:
    log = EpisodeLog(1, run_seed=0, task="a", num_actions=2)
    log.start(np.ones(1, dtype=bool))
    for action in (1, 0):
        log.append(np.array([action]))
    done: list[str] = []
    playing = log.play_again(
        lambda *_: done.append("reset"),
        lambda actions: done.append(f"send {actions[0]}"),
        lambda: done.append("receive"),
    )

    assert [list(done) for _ in playing] == [
        ["reset", "send 1"],
        ["reset", "send 1", "receive", "send 0"],
    ]
    assert done[4:] == ["receive"]


def test_a_stop_ends_it() -> None:
    """It would take minutes; no emulator may be waited for when they are closed then."""
    envs = [make_envs(task, num_envs=2, run_seed=0) for task in ("pong", "boxing")]
    for env in envs:
        env.reset()
        for _ in range(20):
            env.send(np.zeros(2, dtype=np.int64))
            env.recv()
        state = env.state_dict()
        state["actions"] = [actions * 20_000 for actions in state["actions"]]  # for minutes
        env.load_state_dict(state)
    asked = iter([None, None, signal.SIGTERM])
    with pytest.raises(Interrupted) as stopped:
        catch_up_all(envs, lambda: next(asked))
    for env in envs:
        env.close()

    assert stopped.value.exit_code == 143
