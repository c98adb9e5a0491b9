"""What cannot work: refused before it starts, or stopped before it spoils what there is."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import gymnasium
import pytest
from in_process import verb
from safetensors.torch import load_file

from actor_mimic.storage import durable
from actor_mimic.storage.checkpoint import find_checkpoints, resolve_checkpoint
from actor_mimic.storage.durable import FAULT_POINTS

TASK = "gym:CartPole-v1"
SMALL = [
    "--total-steps=1024",
    "--eval-every-steps=0",
    "--checkpoint-every-steps=512",
    "--set=record_every_steps=256",
    "--set=final_episodes=2",
    "--device=cpu",
    "--precision=float32",
    "--threads=1",
]
PQN = ["--set=num_envs=8", "--set=rollout_steps=16", "--set=minibatch_size=64"]
DQN = [
    "--algorithm=dqn",
    "--set=num_envs=4",
    "--set=update_every_steps=8",
    "--set=batch_size=32",
    "--set=learning_starts_steps=200",
    "--set=replay_capacity_steps=2000",
]

# Pays 1 a step, and from some step of the process on more than a square can hold in float32.
SAVES = ["train-expert", TASK, *SMALL, *DQN]
EXPLODING = """
import os
import gymnasium
import numpy as np

class Exploding(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0.0, 10.0, (1,))
    action_space = gymnasium.spaces.Discrete(2)
    steps = 0

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.time += 1
        Exploding.steps += 1
        explodes = "EXPLODE_AT" in os.environ and Exploding.steps > int(os.environ["EXPLODE_AT"])
        reward = float(os.environ["EXPLODING_REWARD"]) if explodes else 1.0
        return np.full(1, self.time, np.float32), reward, self.time == 10, False, {}

gymnasium.register("Exploding-v0", Exploding, disable_env_checker=True)
"""


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs a verb in this process; checks its exit code and gives what it said."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, expect: int = 0) -> str:
        left, said = verb(*arguments)
        assert left == expect, said
        return said

    return call


@pytest.fixture
def exploding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A task that other processes find too."""
    (tmp_path / "exploding.py").write_text(EXPLODING)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    yield "gym:exploding:Exploding-v0"
    sys.modules.pop("exploding", None)
    gymnasium.registry.pop("Exploding-v0", None)


def saved_steps(run: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in find_checkpoints(run / "checkpoints")]


def test_a_loss_that_is_not_finite_stops_the_run_and_the_same_command_goes_on(
    exploding: str, call: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process of its own until it stops; then resumed, the weights are as if never."""
    command = ["train-expert", exploding, *SMALL, *PQN]
    monkeypatch.setenv("EXPLODING_REWARD", "1e25")
    monkeypatch.setenv("EXPLODE_AT", "700")
    stopped = subprocess.run(
        [sys.executable, "-m", "actor_mimic", *command, "--run-dir=stopped"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert stopped.returncode == 70, stopped.stderr
    *_, said = stopped.stderr.splitlines()
    assert said.startswith(f"error: {exploding}, after 768 steps and 40 updates: not finite: ")
    assert "stopped before the optimiser step" in said
    assert "The last checkpoint, of step 512, is intact" in said
    assert "Traceback" not in stopped.stderr

    run = tmp_path / "stopped"
    assert saved_steps(run) == [512]
    model = load_file(resolve_checkpoint(run).path / "model.safetensors")
    assert all(tensor.isfinite().all() for tensor in model.values())
    assert not (run / "complete.json").exists()

    monkeypatch.delenv("EXPLODE_AT")
    call(*command, "--run-dir=stopped")
    call(*command, "--run-dir=never-stopped")
    twins = [resolve_checkpoint(tmp_path / name) for name in ("stopped", "never-stopped")]
    assert twins[0].model_sha256 == twins[1].model_sha256
    steps = [json.loads(line)["step"] for line in (run / "records.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The weights of the run that the next test disturbs."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert verb(*SAVES, f"--run-dir={run}")[0] == 0
    return resolve_checkpoint(run).model_sha256


@pytest.mark.parametrize("point", [p for p in FAULT_POINTS if p.startswith("save-")])
def test_a_full_disk_ends_the_run_and_the_same_command_goes_on(
    point: str,
    undisturbed: str,
    call: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second save fails; what went wrong after its rename must not be saved twice."""
    if point == "save-old-set-aside":
        pytest.skip("no save of a run replaces another")
    monkeypatch.setattr(durable, "_passages", {})
    number = 6 if point == "save-tensors-written" else 2  # the first save has four files of them
    monkeypatch.setenv("ACTOR_MIMIC_FAULT", f"{point}:{number}:enospc")
    said = call(*SAVES, "--run-dir=run", expect=74)
    assert "No space left on device" in said
    assert "Traceback" not in said
    renamed = point in ("save-renamed", "save-parent-synced")
    assert saved_steps(tmp_path / "run") == ([512, 1024] if renamed else [512])

    monkeypatch.delenv("ACTOR_MIMIC_FAULT")
    call(*SAVES, "--run-dir=run")
    assert saved_steps(tmp_path / "run") == [512, 1024]
    assert resolve_checkpoint(tmp_path / "run").model_sha256 == undisturbed


@pytest.mark.parametrize("learner", [PQN, DQN], ids=["pqn", "dqn"])
def test_a_learning_rate_beyond_reason(
    learner: list[str], call: Callable[..., str], tmp_path: Path
) -> None:
    command = ["train-expert", TASK, *SMALL, *learner, "--run-dir=run"]
    said = call(*command, "--set=learning_rate=1e30", expect=70)

    assert f"error: {TASK}, after " in said
    assert "Try a lower learning rate" in said
    assert saved_steps(tmp_path / "run") == []
    assert "learning_rate" in call(*command, expect=78)  # the run is of that rate


def test_weights_that_overflow_in_the_last_update_are_not_the_result(
    call: Callable[..., str], tmp_path: Path
) -> None:
    """One update in all: its loss is finite, what it makes of the weights is not."""
    command = ["train-expert", TASK, *SMALL[1:], *DQN, "--total-steps=208", "--run-dir=run"]
    said = call(*command, "--set=learning_rate=1e300", expect=70)

    assert f"error: {TASK}, after 208 steps and 1 updates: the model's " in said
    assert saved_steps(tmp_path / "run") == []
    assert not (tmp_path / "run" / "complete.json").exists()


def test_an_infinite_reward_is_the_environments_fault(
    exploding: str, call: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXPLODING_REWARD", "inf")
    monkeypatch.setenv("EXPLODE_AT", "700")
    said = call("train-expert", exploding, *SMALL, *PQN, "--run-dir=run", expect=65)

    assert f"error: {exploding}: the environment returned a NaN or infinite value" in said
    assert saved_steps(tmp_path / "run") == [512]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ([*PQN[:2], "--set=minibatch_size=100"], "must divide num_envs x rollout_steps"),
        ([*PQN[:2], "--set=minibatch_size=256"], "must divide num_envs x rollout_steps"),
        (["--set=num_envs=0"], "num_envs must be positive"),
        (["--set=num_envs=-8"], "num_envs must be positive"),
        (["--set=num_envs=2.5"], "num_envs must be a whole number"),
        (["--set=rollout_steps=0"], "rollout_steps must be positive"),
        ([*DQN[:2], "--set=update_every_steps=6"], "must be a multiple of num_envs"),
        ([*DQN[:2], "--set=update_every_steps=3"], "must be a multiple of num_envs"),
        ([*DQN[:5], "--set=replay_capacity_steps=40"], "must be at least 12 x num_envs"),
        ([*DQN[:5], "--set=replay_capacity_steps=100"], "exceeds replay_capacity_steps 100"),
        ([*DQN, "--set=n_step=2000"], "n_step 2000 must be at most"),
        ([*DQN[:4], "--set=learning_starts_steps=15"], "must be at least (n_step + 1) x num_envs"),
        ([*DQN[:3], "--set=batch_size=0"], "batch_size must be positive"),
        ([*DQN[:5], "--set=replay_capacity_steps=1e13"], "GiB are free"),
        (["--set=learning_rate=nan"], "learning_rate must be a number"),
        (["--set=learning_rate=-1"], "learning_rate must be positive"),
        (["--set=network=natur"], "nature"),
    ],
)
def test_what_does_not_fit_or_divide_is_refused_before_anything_starts(
    settings: list[str], said: str, call: Callable[..., str], tmp_path: Path
) -> None:
    assert said in call("train-expert", TASK, *SMALL, *settings, "--run-dir=run", expect=78)

    left = {path.name for path in (tmp_path / "run").rglob("*")}
    assert left <= {".lock", "checkpoints"}


def test_what_was_refused_can_be_corrected_in_the_same_directory(
    call: Callable[..., str], tmp_path: Path
) -> None:
    command = ["train-expert", TASK, *SMALL[1:], "--total-steps=256", *DQN[:5], "--run-dir=run"]
    call(*command, "--set=replay_capacity_steps=1e13", expect=78)
    call(*command, "--set=replay_capacity_steps=2000")

    assert (tmp_path / "run" / "complete.json").exists()
