"""Where the replays of a stage are kept."""

import pytest
import torch

from actor_mimic import compute
from actor_mimic.errors import ConfigError
from actor_mimic.replay.frame_replay import FrameReplay
from actor_mimic.stages import replays
from actor_mimic.stages.replays import make_replays

LAYOUT = {
    "num_envs": 2,
    "capacity_steps": 64,
    "frame_shape": (4, 4),
    "frame_dtype": torch.uint8,
    "stack_size": 4,
}
NEEDED = 3 * FrameReplay.bytes_needed(**LAYOUT)
GPU = "cpu:0"  # stands for one


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Memory that is left on each device."""
    left = {"cpu": 2 * NEEDED, GPU: 2 * NEEDED}
    for module in (compute, replays):
        monkeypatch.setattr(module, "free_bytes", left.__getitem__)
    return left


class Placed(FrameReplay):
    """Remembers where its frames were to be kept."""

    def __init__(self, *, device: str, **layout: object) -> None:
        super().__init__(device=device, **layout)
        self.device = device


@pytest.mark.parametrize(("left", "device"), [(2 * NEEDED, GPU), (2 * NEEDED - 1, "cpu")])
def test_frames_are_kept_on_the_device_if_half_of_it_is_enough(monkeypatch, free, left, device):
    monkeypatch.setattr(replays, "FrameReplay", Placed)
    free[GPU] = left

    made = make_replays([LAYOUT] * 3, GPU)

    assert [replay.device for replay in made] == [device] * 3
    assert sum(replay.nbytes for replay in made) == NEEDED


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_what_fits_nowhere_is_refused(free, device):
    free |= {"cpu": NEEDED, GPU: NEEDED}  # and a tenth more is needed

    with pytest.raises(ConfigError, match=r"the replay of 3 task\(s\) needs"):
        make_replays([LAYOUT] * 3, device)
