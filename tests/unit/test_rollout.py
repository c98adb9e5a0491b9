"""Collection against a twin that keeps whole histories in lists."""

import json

import numpy as np
import pytest
import torch

from actor_mimic.envs.make import make_envs
from actor_mimic.envs.vector_step import VectorStep, closed_on_error
from actor_mimic.errors import DataError
from actor_mimic.protocols import PROTOCOLS
from actor_mimic.rollout import Episode, Rollout
from actor_mimic.seeding import numpy_generator

STACK = 4


class Scripted:
    """Environments with made-up frames and ends: each frame is a number that occurs once.

    Ends come at random, a truncation together with a lost life among them; rewards too, raw and
    clipped ones differing. `history` is what was said, one list of steps per environment.
    """

    frame_skip = 4
    steps_per_s = 15.0

    def __init__(self, task="a", num_envs=3, num_actions=3, shape=(1, 2), seed=0):
        self.task, self.num_envs, self.frame_shape = task, num_envs, shape
        self.action_names = tuple(f"{task}/{action}" for action in range(num_actions))
        self.frame_dtype = np.int32 if len(shape) > 1 else np.float32
        self.stack_size = STACK if len(shape) > 1 else 1
        self.rng = np.random.default_rng(seed)
        self.next_frame = 0
        self.sent = []
        self.history = [[] for _ in range(num_envs)]

    def new_frames(self):
        numbers = self.next_frame + 1 + np.arange(self.num_envs)
        self.next_frame += self.num_envs
        ones = np.ones(self.frame_shape, dtype=self.frame_dtype)
        return np.stack([ones * number for number in numbers]).astype(self.frame_dtype)

    def reset(self):
        self.current = self.new_frames()
        return self.current.copy()

    def send(self, actions):
        assert actions.shape == (self.num_envs,)
        self.sent.append(actions.copy())

    def recv(self):
        final_frames = self.new_frames()
        ends = self.rng.choice(5, size=self.num_envs, p=[0.6, 0.1, 0.1, 0.15, 0.05])
        terminated, truncated, lost = ends == 1, (ends == 2) | (ends == 4), ends >= 3
        frames = final_frames
        if (terminated | truncated).any():
            frames = np.where(
                (terminated | truncated).reshape(-1, *[1] * len(self.frame_shape)),
                self.new_frames(),
                final_frames,
            )
        raw = self.rng.integers(-3, 4, size=self.num_envs).astype(np.float32)
        step = VectorStep(
            frames=frames.copy(),
            final_frames=final_frames,
            raw_reward=raw,
            reward=np.clip(raw, -1.0, 1.0),
            terminated=terminated,
            truncated=truncated,
            life_lost=lost,
            failed=np.zeros_like(lost),
        )
        for env, past in enumerate(self.history):
            past.append((self.current[env].copy(), int(self.sent[-1][env]), step))
        self.current = frames.copy()
        return step

    def state_dict(self):
        return {"next_frame": self.next_frame}

    def load_state_dict(self, state):
        self.next_frame = state["next_frame"]

    def catch_up(self):
        return iter(())

    def picture(self):
        return np.zeros((1, 1, 3), dtype=np.uint8)

    def close(self):
        self.task = "closed"


class Twin:
    """One environment's life in lists: frames of the episode so far, score, length."""

    def __init__(self, first_frame):
        self.begin(first_frame)

    def begin(self, frame):
        self.frames, self.score = [frame], 0.0

    def stack(self, extra=()):
        frames = [*self.frames, *extra]
        padding = [np.zeros_like(frames[0])] * STACK
        return np.stack([*padding, *frames][-STACK:])


def rollout_of(*envs, life_loss_is_terminal=False, seed=0):
    return Rollout(
        envs,
        life_loss_is_terminal=life_loss_is_terminal,
        rngs=[numpy_generator(seed, env.task) for env in envs],
    )


def advance(rollout, greedy=None, epsilon=1.0):
    greedy = np.zeros(rollout.num_envs, dtype=np.int64) if greedy is None else greedy
    rollout.send(greedy, epsilon)
    return rollout.recv()


@pytest.mark.parametrize("life_loss_is_terminal", [False, True])
def test_images_agree_with_lists(life_loss_is_terminal):
    envs = Scripted(num_envs=3)
    rollout = rollout_of(envs, life_loss_is_terminal=life_loss_is_terminal)
    rollout.start()
    twins = [Twin(frame) for frame in envs.current]
    episodes = []
    for _ in range(200):
        observed = rollout.observations.numpy().copy()
        (transition,) = advance(rollout)
        final = list(transition.final_observations.numpy())
        for env, twin in enumerate(twins):
            frame, action, step = envs.history[env][-1]
            over = step.terminated[env] or step.truncated[env]
            terminal = step.terminated[env] or (life_loss_is_terminal and step.life_lost[env])
            truncated = step.truncated[env] and not terminal
            assert np.array_equal(observed[env], twin.stack())
            assert np.array_equal(transition.frames[env], frame)
            assert transition.actions[env] == action
            assert transition.rewards[env] == step.reward[env]
            assert transition.first[env] == (len(twin.frames) == 1)
            assert transition.terminal[env] == terminal
            assert transition.truncated[env] == truncated
            assert np.array_equal(transition.final_frames[env], step.final_frames[env])
            if truncated:
                assert np.array_equal(final.pop(0), twin.stack([step.final_frames[env]]))
            twin.score += float(step.raw_reward[env])
            if over:
                episodes.append(Episode("a", env, twin.score, len(twin.frames)))
                twin.begin(step.frames[env])
            else:
                twin.frames.append(step.frames[env])
        assert not final

    assert len(episodes) > 50
    assert rollout.take_finished() == episodes
    assert rollout.take_finished() == []


def test_vectors_are_not_stacked():
    envs = Scripted(shape=(2,))
    rollout = rollout_of(envs, life_loss_is_terminal=False)
    rollout.start()
    firsts = np.ones(3, dtype=bool)
    for _ in range(60):
        before = rollout.observations.clone()
        (transition,) = advance(rollout)
        step = envs.history[0][-1][2]
        assert before.shape == (3, 2)
        assert np.array_equal(transition.frames, before.numpy())
        assert np.array_equal(transition.first, firsts)
        assert np.array_equal(
            transition.final_observations.numpy(), step.final_frames[transition.truncated]
        )
        assert np.array_equal(rollout.observations.numpy(), step.frames)
        firsts = step.started


def test_tasks_side_by_side_keep_their_rows_actions_and_streams():
    def sizes():
        return Scripted("a", 2, num_actions=2), Scripted("b", 3, num_actions=5, seed=1)

    together, alone = sizes(), sizes()
    rollout = rollout_of(*together)
    singles = [rollout_of(env) for env in alone]
    for each in (rollout, *singles):
        each.start()
    greedy = np.array([0, 1, 4, 0, 2])
    for _ in range(80):
        assert torch.equal(
            rollout.observations, torch.cat([single.observations for single in singles])
        )
        transitions = advance(rollout, greedy, 0.5)
        for transition, single, part in zip(transitions, singles, rollout.slices, strict=True):
            (expected,) = advance(single, greedy[part], 0.5)
            for name, value in vars(expected).items():
                assert np.array_equal(getattr(transition, name), value), name

    assert rollout.slices == [slice(0, 2), slice(2, 5)]
    assert (rollout.num_envs, len(transitions)) == (5, 2)
    finished = rollout.take_finished()
    for task, single in zip("ab", singles, strict=True):
        assert [episode for episode in finished if episode.task == task] == single.finished
    # Each explores its own actions, all of them and no others.
    assert set(np.concatenate(together[0].sent).tolist()) == {0, 1}
    assert set(np.concatenate(together[1].sent).tolist()) == {0, 1, 2, 3, 4}


def test_epsilon_0_plays_what_it_is_told():
    envs = Scripted(num_envs=2)
    rollout = rollout_of(envs)
    rollout.start()
    for greedy in ([0, 2], [1, 1], [2, 0]):
        (transition,) = advance(rollout, np.array(greedy), 0.0)
        assert transition.actions.tolist() == envs.sent[-1].tolist() == greedy


def test_a_lost_life_ends_nothing_but_the_training_episode():
    envs = Scripted(num_envs=1)
    rollout = rollout_of(envs, life_loss_is_terminal=True)
    rollout.start()
    for _ in range(100):
        (transition,) = advance(rollout)
        step = envs.history[0][-1][2]
        if transition.terminal[0] and not step.started[0]:
            break
    after = rollout.observations[0, :, 0, 0].tolist()
    (following,) = advance(rollout)

    assert step.life_lost[0]
    assert after[-1] == step.frames[0, 0, 0]
    assert after[-2] == transition.frames[0, 0, 0] > 0  # the stack reaches back over it
    assert not following.first[0]


def test_starting_again_forgets_unfinished_games():
    envs = Scripted(num_envs=2)
    rollout = rollout_of(envs)
    rollout.start()
    for _ in range(5):
        advance(rollout)
    rollout.start()

    assert torch.equal(rollout.observations[:, -1], torch.from_numpy(envs.current))
    assert not rollout.observations[:, :-1].any()
    tensors, _ = rollout.state_dict()
    assert tensors["first"].tolist() == [True, True]
    assert tensors["score"].tolist() == [0.0, 0.0]
    assert tensors["length"].tolist() == [0, 0]


def test_what_is_handed_out_is_not_overwritten():
    rollout = rollout_of(Scripted())
    rollout.start()
    handed, copies = [], []
    for _ in range(30):
        (transition,) = advance(rollout)
        arrays = [np.asarray(value) for value in vars(transition).values()]
        handed += arrays
        copies += [array.copy() for array in arrays]

    assert all(np.array_equal(a, b) for a, b in zip(handed, copies, strict=True))


def through_json(rollout):
    tensors, state = rollout.state_dict()
    return tensors, json.loads(json.dumps(state))


@pytest.mark.parametrize(
    ("tasks", "steps", "more"),
    [
        (["breakout", "pong"], 260, 40),
        (["gym:CartPole-v1", "gym:CartPole-v1"], 75, 80),
        (["gym:CartPole-v1"], 0, 30),
    ],
)
def test_a_restored_rollout_goes_on_bit_for_bit(tasks, steps, more):
    def build(seed):
        envs = [
            make_envs(task, num_envs=2, run_seed=index, protocol=PROTOCOLS["sticky"])
            for index, task in enumerate(tasks)
        ]
        return rollout_of(*envs, life_loss_is_terminal=True, seed=seed)

    rollout, twin = build(0), build(1)  # the twin's own streams must not matter
    rollout.start()
    for _ in range(steps):
        advance(rollout, epsilon=0.9)
    twin.load_state_dict(*through_json(rollout))
    twin.catch_up()

    assert torch.equal(rollout.observations, twin.observations)
    assert steps == 0 or len(rollout.finished) > 0
    for _ in range(more):
        for transition, other in zip(
            advance(rollout, epsilon=0.9), advance(twin, epsilon=0.9), strict=True
        ):
            for name, value in vars(transition).items():
                assert np.array_equal(value, getattr(other, name)), name
        assert torch.equal(rollout.observations, twin.observations)
    # Games that finished before and not yet taken, and scores begun before, go on too.
    assert rollout.take_finished() == twin.take_finished()
    rollout.close()


def test_a_state_does_not_follow_the_rollout_it_was_taken_from():
    rollout = rollout_of(Scripted())
    rollout.start()
    tensors, _ = rollout.state_dict()
    copies = {name: tensor.clone() for name, tensor in tensors.items()}
    for _ in range(10):
        advance(rollout)

    assert all(torch.equal(tensors[name], copy) for name, copy in copies.items())


def test_states_of_other_numbers_of_tasks_are_refused():
    one, two = rollout_of(Scripted("a")), rollout_of(Scripted("a"), Scripted("b"))
    with pytest.raises(DataError, match="the checkpoint has 1 tasks, this run has 2"):
        two.load_state_dict(*one.state_dict())


def test_no_state_is_taken_in_the_middle_of_a_step():
    rollout = rollout_of(Scripted())
    rollout.start()
    rollout.send(np.zeros(3, dtype=np.int64), 0.0)
    with pytest.raises(AssertionError, match="recv first"):
        rollout.state_dict()
    rollout.recv()
    rollout.state_dict()


def test_close_closes_every_task():
    envs = [Scripted("a"), Scripted("b")]
    rollout_of(*envs).close()

    assert [env.task for env in envs] == ["closed", "closed"]


class Stuck(Scripted):
    def close(self):
        raise OSError("it does not close")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_an_environment_that_does_not_close_leaves_no_other_open(order):
    envs = [[Stuck("a"), Scripted("b")][index] for index in order]
    with pytest.raises(OSError, match="does not close"):
        rollout_of(*envs).close()

    assert sorted(env.task for env in envs) == ["a", "closed"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_what_went_wrong_is_not_hidden_by_what_does_not_close(order):
    envs = [[Stuck("a"), Scripted("b")][index] for index in order]
    with pytest.raises(KeyError, match="the true reason") as caught, closed_on_error(envs):
        raise KeyError("the true reason")

    assert sorted(env.task for env in envs) == ["a", "closed"]
    assert "it does not close" in caught.value.__notes__[0]
