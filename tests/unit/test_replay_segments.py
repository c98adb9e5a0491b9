"""Segments of the frame replay: what is saved piece by piece comes back bit for bit."""

import numpy as np
import pytest
import torch
from replay_twin import ELSEWHERE, GAMMA, Stream, make_replay

from actor_mimic.errors import DataError


def everything(replay):
    return replay.export_since(np.zeros(replay.num_envs, dtype=np.int64))


def assert_same(one, other, *, seed):
    assert (len(one), one.steps_added) == (len(other), other.steps_added)
    held, restored = everything(one), everything(other)
    assert held.keys() == restored.keys()
    assert all(torch.equal(held[name], restored[name]) for name in held)
    rngs = np.random.default_rng(seed), np.random.default_rng(seed)
    for n_step in (1, 3):
        batches = [
            replay.sample_transitions(50, n_step=n_step, gamma=GAMMA, rng=rng)
            for replay, rng in zip((one, other), rngs, strict=True)
        ]
        for name, value in vars(batches[0]).items():
            assert torch.equal(value, getattr(batches[1], name).cpu()), name


@pytest.mark.parametrize("seed", range(6))
def test_restored_segments_equal_the_original(seed):
    rng = np.random.default_rng(seed)
    stream = Stream(make_replay(labels=True), seed=seed, labels=True)
    segments, saved = [], np.zeros(3, dtype=np.int64)
    for _ in range(12):
        stream.play(int(rng.integers(0, 25)))  # none, a few, or more than the ring holds
        segments.append(stream.replay.export_since(saved))
        saved = stream.replay.written
        oldest = torch.from_numpy(stream.replay.oldest)
        segments = [s for s in segments if (s["written_after"] > oldest).any()] or segments[-1:]
        if not stream.replay.steps_added:
            continue

        restored = make_replay(labels=True)
        restored.restore(iter(segments))
        stream.play(4)
        late = stream.replay.export_since(saved)
        segments.append(late)
        saved = stream.replay.written
        following = make_replay(labels=True)
        following.restore(segments)
        assert_same(stream.replay, following, seed=seed)

        before_late = make_replay(labels=True)
        before_late.restore(segments[:-1])
        assert_same(before_late, restored, seed=seed)
    assert len(segments) < 12


@pytest.mark.parametrize("device", ELSEWHERE)
def test_segments_do_not_tell_where_the_frames_were(device):
    at_home, away = (
        Stream(make_replay(labels=True, device=place), seed=3, labels=True)
        for place in ("cpu", device)
    )
    for stream in (at_home, away):
        stream.play(30)

    assert_same(at_home.replay, away.replay, seed=0)
    moved = make_replay(labels=True, device=device)
    moved.restore([everything(at_home.replay)])
    assert_same(at_home.replay, moved, seed=1)


def test_a_restored_replay_goes_on_as_the_original():
    stream = Stream(make_replay(), seed=4)
    stream.play(40)
    restored = make_replay()
    restored.restore([everything(stream.replay)])
    for _ in range(30):
        step = stream.arguments()
        stream.replay.add(**step)
        restored.add(**step)
        assert_same(stream.replay, restored, seed=0)


def test_restoring_nothing_leaves_an_empty_replay():
    replay = make_replay()
    replay.restore([])

    assert (len(replay), replay.steps_added) == (0, 0)


def three_segments():
    stream = Stream(make_replay(), seed=4)
    segments, saved = [], np.zeros(3, dtype=np.int64)
    for _ in range(3):
        stream.play(5)
        segments.append(stream.replay.export_since(saved))
        saved = stream.replay.written
    return segments


def test_missing_or_foreign_segments_are_refused():
    one, two, three = three_segments()
    wide = one | {"rewards": one["rewards"].double()}
    unequal = one | {"actions": one["actions"][1:]}
    fewer = one | {name: one[name][:2] for name in ("written_before", "written_after")}
    for segments, message in [
        ([one, three], "the one before it ended at"),
        ([two, three], "expected everything from slots"),
        ([wide], r"field rewards: expected \(\d+,\) torch.float32"),
        ([unequal], "field actions"),
        ([fewer], "slot counts of 3 environments"),
        ([{name: one[name] for name in one if name != "flags"}], "flags"),
        ([{name: one[name] for name in one if name != "steps_added"}], "steps_added"),
    ]:
        with pytest.raises(DataError, match=message):
            make_replay().restore(segments)
    with pytest.raises(DataError, match="label_scores"):
        make_replay(labels=True).restore([one])


def test_a_used_replay_is_not_restored_and_exports_only_from_its_past():
    stream = Stream(make_replay(), seed=4)
    stream.play(3)

    with pytest.raises(ValueError, match="empty"):
        stream.replay.restore(three_segments())
    for wrong in ([99, 0, 0], [-1, 0, 0]):
        with pytest.raises(ValueError, match="earlier value"):
            stream.replay.export_since(np.array(wrong))
