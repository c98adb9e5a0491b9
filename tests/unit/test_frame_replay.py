"""Frame replay against a hand-drawn stream and against a slow twin that keeps whole episodes."""

import math

import numpy as np
import pytest
import torch
from replay_twin import ELSEWHERE, GAMMA, Stream, make_replay, read

from actor_mimic.replay.frame_replay import FrameReplay


def assert_draws_equal_twin(stream, n_step, rng):
    """Every drawn transition is right, and exactly the drawable ones are drawn."""
    expected = stream.twin.drawable(n_step)
    size = 32 * max(len(expected), 1)
    if not expected:
        with pytest.raises(ValueError, match="no step can be drawn"):
            stream.replay.sample_transitions(size, n_step=n_step, gamma=GAMMA, rng=rng)
        return
    batch = stream.replay.sample_transitions(size, n_step=n_step, gamma=GAMMA, rng=rng)
    shape = (size, stream.replay.stack_size)
    obs = read(batch.obs, stream.frame_shape).reshape(shape)
    next_obs = read(batch.next_obs, stream.frame_shape).reshape(shape)
    drawn = {
        int(obs[i, -1]): (
            tuple(obs[i].tolist()),
            batch.actions[i].item(),
            batch.returns[i].item(),
            tuple(next_obs[i].tolist()),
            batch.discounts[i].item(),
        )
        for i in range(size)
    }
    assert drawn == expected


# Stack 3, gamma 1/2, 3-step returns. A life is lost at 12, a limit ends the episode after 14,
# whose last frame is 15, and the second episode ends with its second step.
#
#   frame     10     11     12     13     14     15     20     21     30     31     32     33
#   reward     1      2      4      8     16      -      2      4      1      2      4      8
#   end                   life          limit  final          over
#   first     *                                         *             *
DRAWN = [  # frame, reward, terminal, truncated, first, final frame
    (10, 1, False, False, True, 0),
    (11, 2, False, False, False, 0),
    (12, 4, True, False, False, 0),
    (13, 8, False, False, False, 0),
    (14, 16, False, True, False, 15),
    (20, 2, False, False, True, 0),
    (21, 4, True, False, False, 0),
    (30, 1, False, False, True, 0),
    (31, 2, False, False, False, 0),
    (32, 4, False, False, False, 0),
    (33, 8, False, False, False, 0),
]
EXPECTED = {  # obs: return, next obs, discount
    (0, 0, 10): (1 + 1 + 1, (10, 11, 12), 0.0),
    (0, 10, 11): (2 + 2, (10, 11, 12), 0.0),
    (10, 11, 12): (4, (10, 11, 12), 0.0),
    (11, 12, 13): (8 + 8, (13, 14, 15), 1 / 4),  # the life loss does not cut the stack
    (12, 13, 14): (16, (13, 14, 15), 1 / 2),
    (0, 0, 20): (2 + 2, (0, 20, 21), 0.0),
    (0, 20, 21): (4, (0, 20, 21), 0.0),
    (0, 0, 30): (1 + 1 + 1, (31, 32, 33), 1 / 8),
    # 31, 32, 33: three newer slots are needed and not there yet
}


def replay_of_drawn_stream(slots=12):
    replay = make_replay(num_envs=1, slots=slots, stack_size=3, frame_shape=(1,),
                         frame_dtype=torch.float32)  # fmt: skip
    for frame, reward, terminal, truncated, first, final in DRAWN:
        replay.add(
            np.array([[frame]], dtype=np.float32),
            np.array([frame % 10]),
            np.array([reward], dtype=np.float32),
            np.array([terminal]),
            np.array([truncated]),
            np.array([first]),
            final_frames=np.array([[final]], dtype=np.float32),
        )
    return replay


def drawn_transitions(replay, n_step):
    rng = np.random.default_rng(0)
    batch = replay.sample_transitions(600, n_step=n_step, gamma=GAMMA, rng=rng)
    rows = zip(batch.obs, batch.returns, batch.next_obs, batch.discounts, strict=True)
    return {
        tuple(obs[:, 0].tolist()): (value.item(), tuple(after[:, 0].tolist()), discount.item())
        for obs, value, after, discount in rows
    }


def test_hand_drawn_stream():
    replay = replay_of_drawn_stream()

    assert drawn_transitions(replay, n_step=3) == EXPECTED
    assert (len(replay), replay.steps_added, replay.written.tolist()) == (11, 11, [12])


def test_hand_drawn_stream_whose_start_is_overwritten():
    """11 slots: frame 10 is gone, so the stacks that end at 11 and 12 are incomplete."""
    gone = {(0, 0, 10), (0, 10, 11), (10, 11, 12)}
    kept = {obs: rest for obs, rest in EXPECTED.items() if obs not in gone}

    assert drawn_transitions(replay_of_drawn_stream(slots=11), n_step=3) == kept


@pytest.mark.parametrize("device", ["cpu", *ELSEWHERE])
@pytest.mark.parametrize(("stack_size", "num_envs"), [(1, 1), (1, 3), (4, 1), (4, 3)])
def test_random_streams_equal_the_naive_twin(stack_size, num_envs, device):
    replay = make_replay(num_envs=num_envs, stack_size=stack_size, device=device)
    stream = Stream(replay, seed=stack_size * 10 + num_envs)
    rng = np.random.default_rng(1)
    for block in range(40):
        stream.play(1 if block < 20 else 3)  # through filling, wrapping and several rounds
        for n_step in (1, 2, 3, 4):
            assert_draws_equal_twin(stream, n_step, rng)
        assert len(replay) == stream.twin.steps_held()
        assert replay.steps_added == num_envs * (block + 1 if block < 20 else 3 * block - 37)
        assert replay.written.tolist() == [len(history) for history in stream.twin.history]


def test_longest_window_equals_the_naive_twin():
    stream = Stream(make_replay(slots=12), seed=5)
    rng = np.random.default_rng(1)
    for _ in range(30):
        stream.play(1)
        assert_draws_equal_twin(stream, 8, rng)
    with pytest.raises(ValueError, match=r"n_step must lie in 1\.\.8, got 9"):
        stream.replay.sample_transitions(1, n_step=9, gamma=GAMMA, rng=rng)


def test_vectors_without_a_stack_have_no_stack_axis():
    replay = make_replay(stack_size=1, frame_shape=(5,), frame_dtype=torch.float32)
    stream = Stream(replay, seed=3, frame_shape=(5,), dtype=np.float32)
    stream.play(60)

    batch = replay.sample_transitions(7, n_step=2, gamma=GAMMA, rng=np.random.default_rng(0))
    assert (batch.obs.shape, batch.obs.dtype) == ((7, 5), torch.float32)
    assert_draws_equal_twin(stream, 2, np.random.default_rng(0))


def test_images_have_a_stack_axis_even_alone():
    replay = make_replay(stack_size=1)
    Stream(replay, seed=3).play(10)

    batch = replay.sample_transitions(7, n_step=1, gamma=GAMMA, rng=np.random.default_rng(0))
    assert (batch.obs.shape, batch.obs.dtype) == ((7, 1, 2, 2), torch.uint8)


@pytest.mark.parametrize("batch_size", [1, 7, 64, 500])
def test_draws_are_uniform(batch_size):
    """Pearson's statistic has mean k - 1 and variance 2 (k - 1) over k equally likely steps."""
    stream = Stream(make_replay(), seed=8)
    stream.play(50)
    rng = np.random.default_rng(4)
    expected = stream.twin.drawable(3)
    counts = dict.fromkeys(expected, 0)
    calls = 3000 // batch_size
    for _ in range(calls):
        batch = stream.replay.sample_transitions(batch_size, n_step=3, gamma=GAMMA, rng=rng)
        for frame in read(batch.obs[:, -1], (2, 2)).tolist():
            counts[frame] += 1
    mean = calls * batch_size / len(counts)
    statistic = sum((count - mean) ** 2 / mean for count in counts.values())
    freedom = len(counts) - 1
    assert freedom > 25
    assert abs(statistic - freedom) < 4 * math.sqrt(2 * freedom)


def test_a_lone_drawable_step_is_found():
    """One step in 1,536 can be drawn, so rejection alone would hardly ever hit it."""
    replay = make_replay(num_envs=1, slots=1600, stack_size=1, frame_shape=(1,))
    no, yes = np.array([False]), np.array([True])
    for i in range(1536):
        frame = np.full((1, 1), i % 251, dtype=np.uint8)
        replay.add(frame, np.array([0]), np.zeros(1, np.float32), no, no, yes if i == 0 else no)

    batch = replay.sample_transitions(5, n_step=1535, gamma=1.0, rng=np.random.default_rng(0))
    assert batch.obs.flatten().tolist() == [0] * 5


def test_labels_stay_with_the_stack_that_ends_at_their_slot():
    stream = Stream(make_replay(labels=True), seed=2, labels=True)
    rng = np.random.default_rng(0)
    for _ in range(30):
        stream.play(2)
        expected = stream.twin.drawable(0)
        batch = stream.replay.sample_labelled(30 * len(expected), rng=rng)
        obs = read(batch.obs, (2, 2))
        newest = torch.from_numpy(obs[:, -1])
        stacks = (tuple(stack) for stack in obs.tolist())
        drawn = dict(zip(newest.tolist(), stacks, strict=True))
        assert drawn == {frame: stack for frame, (stack, _) in expected.items()}
        scores = torch.stack([newest, -newest], dim=1).float()
        torch.testing.assert_close(batch.label_scores, scores, rtol=0, atol=0)
        features = (newest % 2048)[:, None].half()
        torch.testing.assert_close(batch.label_features, features, rtol=0, atol=0)


def test_one_kind_of_label_is_enough_and_none_is_refused():
    rng = np.random.default_rng(0)
    kinds = {"frame_shape": (2, 2), "frame_dtype": torch.uint8, "stack_size": 1}
    replay = FrameReplay(num_envs=3, capacity_steps=60, label_scores=2, **kinds)
    step = Stream(make_replay(labels=True), seed=2, labels=True).arguments()
    features = step.pop("label_features")
    replay.add(**step)

    assert replay.sample_labelled(4, rng=rng).label_features.shape == (4, 0)
    with pytest.raises(ValueError, match="label_features"):
        replay.add(**step, label_features=features)
    with pytest.raises(ValueError, match="without labels"):
        make_replay().sample_labelled(4, rng=rng)


def test_tensors_bfloat16_features_and_read_only_arrays_are_taken():
    replay = make_replay(labels=True)
    stream = Stream(replay, seed=2, labels=True)
    step = stream.arguments()
    for name in ("frames", "rewards", "first"):
        step[name].flags.writeable = False
    step["actions"] = torch.from_numpy(step["actions"])
    step["label_scores"] = torch.from_numpy(step["label_scores"]).requires_grad_()
    step["label_features"] = torch.tensor([[0.5], [1.5], [-2.0]], dtype=torch.bfloat16)
    replay.add(**step)

    features = replay.sample_labelled(64, rng=np.random.default_rng(0)).label_features
    assert sorted({value.item() for value in features}) == [-2.0, 0.5, 1.5]


def test_a_drawn_batch_does_not_alias_the_memory():
    stream = Stream(make_replay(), seed=2)
    stream.play(20)
    batch = stream.replay.sample_transitions(8, n_step=1, gamma=GAMMA, rng=np.random.default_rng(0))
    before = batch.obs.clone()
    stream.play(20)

    assert torch.equal(batch.obs, before)


@pytest.mark.parametrize("labels", [False, True])
def test_bytes_per_atari_step(labels):
    sizes = {
        "num_envs": 4,
        "capacity_steps": 403,  # 100 per environment
        "frame_shape": (84, 84),
        "frame_dtype": torch.uint8,
        "stack_size": 4,
        "label_scores": 18 if labels else 0,
        "label_features": 512 if labels else 0,
    }
    replay = FrameReplay(**sizes)

    assert FrameReplay.bytes_needed(**sizes) == replay.nbytes
    assert replay.nbytes == 400 * (7056 + 7 + (1096 if labels else 0))
    assert replay.nbytes / 400 <= 1.02 * 7056 + (1096 if labels else 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": np.zeros((3, 2, 3), np.uint8)}, r"frames must be \(3, 2, 2\)"),
        ({"frames": np.zeros((3, 2, 2), np.float32)}, "frames must be uint8, got float32"),
        ({"actions": np.array([0, -1, 0])}, "actions must lie in"),
        ({"actions": np.array([0, 1 << 15, 0])}, "actions must lie in"),
        ({"final_frames": None}, "final_frames is needed"),
        ({"final_frames": np.zeros((3, 1, 1), np.uint8)}, "frames must be"),
        ({"label_scores": np.zeros((3, 2), np.float32)}, "label_scores"),
    ],
)
def test_a_refused_step_stores_nothing(change, message):
    stream = Stream(make_replay(), seed=1)
    stream.play(2)
    step = stream.arguments()
    step |= {"truncated": np.array([True, False, False]), "terminal": np.zeros(3, dtype=bool)}
    written = stream.replay.written
    with pytest.raises(ValueError, match=message):
        stream.replay.add(**(step | change))

    assert (stream.replay.written == written).all()
    assert stream.replay.steps_added == 6


def test_a_terminal_truncation_needs_no_final_frame():
    replay = make_replay(num_envs=1)
    yes = np.array([True])
    replay.add(np.ones((1, 2, 2), np.uint8), np.array([3]), np.ones(1, np.float32), yes, yes, yes)

    batch = replay.sample_transitions(2, n_step=3, gamma=0.9, rng=np.random.default_rng(0))
    assert (batch.returns.tolist(), batch.discounts.tolist()) == ([1.0, 1.0], [0.0, 0.0])
    assert replay.written.tolist() == [1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"n_step": 0}, "n_step"),
        ({"gamma": 1.1}, "gamma"),
        ({"gamma": -0.1}, "gamma"),
    ],
)
def test_senseless_draws_are_refused(arguments, message):
    stream = Stream(make_replay(), seed=1)
    stream.play(9)
    sensible = {"batch_size": 2, "n_step": 1, "gamma": 0.9, "rng": np.random.default_rng(0)}
    with pytest.raises(ValueError, match=message):
        stream.replay.sample_transitions(**(sensible | arguments))


def test_a_memory_too_small_for_a_window_is_refused():
    sizes = {"frame_shape": (2, 2), "frame_dtype": torch.uint8, "stack_size": 4}
    FrameReplay(num_envs=2, capacity_steps=24, **sizes)
    for make in (FrameReplay, FrameReplay.bytes_needed):
        with pytest.raises(ValueError, match="capacity_steps must be at least 24"):
            make(num_envs=2, capacity_steps=23, **sizes)
        with pytest.raises(ValueError, match="must be positive"):
            make(num_envs=0, capacity_steps=23, **sizes)
