"""Groups of environments that play a rollout at their own pace: order must not matter."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from probes import CPU, Move, ProbeEnvs, pqn

from actor_mimic.compute import Compute
from actor_mimic.config import ConfigError, ExpertConfig, NetworkConfig
from actor_mimic.envs.make import make_envs
from actor_mimic.envs.vector_step import VectorEnv
from actor_mimic.exploration import epsilon_greedy, spread_argmax
from actor_mimic.seeding import numpy_generator
from actor_mimic.stages import env_groups
from actor_mimic.stages.env_groups import make_task_envs
from actor_mimic.stages.expert import PQNState, expert_state, fresh_network

# Three states in a circle; what is paid depends on state and action.
CIRCLE = [
    [Move(1, 0.1), Move(2, 0.2, "terminated")],
    [Move(2, 0.3), Move(0, 0.4, "truncated")],
    [Move(0, 0.5), Move(1, 0.6)],
]
TIMEOUT_S = 20.0


class Paced(ProbeEnvs):
    """Probe environments that do something before they answer."""

    before: Callable[[], object] = staticmethod(lambda: None)

    def recv(self) -> Any:
        self.before()
        return super().recv()


def state_of(groups: list[Paced], *, seed: int = 0) -> PQNState:
    """A PQN stage before its first step."""
    num_envs = sum(group.num_envs for group in groups)
    learner = pqn(
        num_envs=num_envs, env_groups=len(groups), minibatch_size=num_envs, epsilon_end=0.5
    )
    config = ExpertConfig(
        task="probe",
        total_steps=10_000,
        seed=seed,
        learner=learner,
        network=NetworkConfig(width=0.25),
    )
    state = expert_state(config, CPU, groups, fresh_network(config, groups[0]))
    assert isinstance(state, PQNState)
    state.start()
    return state


def make_groups(count: int, size: int = 4) -> list[Paced]:
    return [Paced(CIRCLE, starts=(index % 3,), num_envs=size) for index in range(count)]


def weights_after(groups: list[Paced], advances: int = 3) -> list[torch.Tensor]:
    state = state_of(groups)
    for _ in range(advances):
        state.advance()
    state.close()
    return [parameter.detach().clone() for parameter in state.network.parameters()]


def test_the_order_in_which_groups_answer_changes_nothing() -> None:
    plain = weights_after(make_groups(3))
    slow = make_groups(3)
    for index, group in enumerate(slow):
        rng = np.random.default_rng(index)
        pause = threading.Event()
        group.before = lambda rng=rng, pause=pause: pause.wait(rng.choice([0.0, 0.003]))

    assert all(map(torch.equal, weights_after(slow), plain))


def test_a_slow_group_holds_nobody_up() -> None:
    """Group 0 does not answer its first step before group 1 has played the whole rollout."""
    groups = make_groups(2)
    answered = []
    done = threading.Event()

    def count() -> None:
        answered.append(1)
        if len(answered) == 8:
            done.set()

    groups[1].before = count
    groups[0].before = lambda: done.wait(TIMEOUT_S)
    state = state_of(groups)
    state.advance()
    state.close()

    assert done.is_set()
    assert len(answered) == 8


def test_every_group_plays_as_it_would_alone() -> None:
    """Rows, actions, rewards and ends of each group against a twin that is stepped by hand."""
    state = state_of(make_groups(3), seed=5)
    network = state.network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state.advance()
    found = state._trajectories
    network.load_state_dict(before)

    for group, envs in enumerate(make_groups(3)):
        rows = slice(4 * group, 4 * group + 4)
        stream = ("exploration", group) if group else ("exploration",)
        rng = numpy_generator(5, "probe", *stream)
        obs = envs.reset()
        for time in range(8):
            with torch.no_grad():
                scores = network(torch.from_numpy(obs)).scores
            greedy = spread_argmax(scores.numpy(), first=rows.start)
            actions = epsilon_greedy(greedy, epsilon=1.0, num_actions=2, rng=rng)
            envs.send(actions)
            step = envs.recv()
            assert np.array_equal(found.obs[time, rows].numpy(), obs)
            assert np.array_equal(found.actions[time, rows], actions)
            assert np.array_equal(found.rewards[time, rows], step.reward)
            assert np.array_equal(found.terminal[time, rows], step.terminated)
            assert np.array_equal(found.cut[time, rows], step.truncated)
            torch.testing.assert_close(found.values[time, rows], scores.amax(dim=1))
            with torch.no_grad():
                last = network(torch.from_numpy(step.final_frames)).scores.amax(dim=1)
            cut = torch.from_numpy(step.truncated)
            torch.testing.assert_close(found.cut_values[time, rows][cut], last[cut])
            obs = step.frames
    state.close()


def test_what_goes_wrong_in_a_group_is_raised_when_the_others_have_answered() -> None:
    groups = make_groups(2)
    failed, answered = threading.Event(), []

    def fail() -> None:
        failed.set()
        raise OSError("the emulator is gone")

    def take_long() -> None:
        assert failed.wait(TIMEOUT_S)
        threading.Event().wait(0.1)  # longer than it takes to raise
        answered.append(1)

    groups[0].before, groups[1].before = fail, take_long
    state = state_of(groups)
    with pytest.raises(OSError, match="the emulator is gone"):
        state.advance()
    assert answered == [1]
    state.close()


def test_all_groups_are_closed_even_if_one_fails_to() -> None:
    groups = make_groups(3)
    closed = []
    for index, group in enumerate(groups):
        group.close = lambda index=index: closed.append(index)  # type: ignore[method-assign]

    def fail() -> None:
        raise OSError("it does not close")

    groups[1].close = fail  # type: ignore[method-assign]
    state = state_of(groups)
    with pytest.raises(OSError, match="it does not close"):
        state.close()

    assert sorted(closed) == [0, 2]


def test_small_groups_have_different_favourites() -> None:
    """Of equal values: groups of one would otherwise all take the first action (deviation 47)."""
    groups = make_groups(2, size=1)
    config = ExpertConfig(
        task="probe",
        total_steps=1_000,
        learner=pqn(num_envs=2, env_groups=2, minibatch_size=2, epsilon_start=0.0, epsilon_end=0.0),
        network=NetworkConfig(width=0.25),
    )
    network = fresh_network(config, groups[0])
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.zero_()
    state = expert_state(config, CPU, groups, network)
    assert isinstance(state, PQNState)
    state.start()
    state.advance()
    state.close()

    assert state._trajectories.actions[0].tolist() == [0, 1]


def test_groups_must_be_equal() -> None:
    with pytest.raises(ConfigError, match="env_groups 3 must divide num_envs 16"):
        ExpertConfig(task="probe", learner=pqn(env_groups=3))


def test_groups_are_for_emulators() -> None:
    config = ExpertConfig(task="gym:CartPole-v1", learner=pqn(env_groups=2))
    with pytest.raises(ConfigError, match="env_groups must be 1 for gym:CartPole-v1, got 2"):
        make_task_envs(config, CPU)


def test_groups_play_different_games_and_share_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first group those of a run without groups."""
    asked: list[int] = []

    def noting(*arguments: Any, num_threads: int, **settings: Any) -> VectorEnv:
        asked.append(num_threads)
        return make_envs(*arguments, num_threads=num_threads, **settings)

    monkeypatch.setattr(env_groups, "make_envs", noting)
    compute = Compute("cpu", "float32", 5)
    frames = []
    for settings in ({"num_envs": 2}, {"num_envs": 4, "env_groups": 2}):
        settings |= {"minibatch_size": 2}
        envs = make_task_envs(ExpertConfig(task="pong", learner=pqn(**settings)), compute)
        for env in envs:
            env.reset()
            for _ in range(20):  # until the ball is there
                env.send(np.zeros(2, dtype=np.int64))
                last = env.recv()
            frames.append(last.frames)
            env.close()

    assert asked == [5, 2, 2]
    assert np.array_equal(frames[1], frames[0])
    assert not np.array_equal(frames[2], frames[1])
