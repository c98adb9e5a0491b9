"""Every verb as a user calls it: a process of its own, real arguments, exit codes, both streams."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from in_process import verb
from made_once import made_once
from safetensors.torch import load_file

TASK = "gym:CartPole-v1"
SMALL = [
    "--total-steps=4096",
    "--eval-every-steps=2048",
    "--checkpoint-every-steps=1024",
    "--set=record_every_steps=512",
    "--set=eval_episodes=2",
    "--set=final_episodes=4",
    "--threads=1",
]
SMALL_PQN = [
    "--set=num_envs=8",
    "--set=rollout_steps=16",
    "--set=minibatch_size=64",
    "--set=epochs=2",
]
SMALL_DQN = [
    "--algorithm=dqn",
    "--set=num_envs=4",
    "--set=update_every_steps=8",
    "--set=batch_size=32",
    "--set=learning_starts_steps=200",
    "--set=replay_capacity_steps=2000",
]
# The same in its other kinds: quantiles, the paper's optimiser, a preset beneath the values.
OTHER_DQN = [
    "--preset=nature",
    *SMALL_DQN,
    "--set=num_quantiles=4",
]
# Of both tasks together; a game of the second is cut after 200 steps.
SMALL_MULTITASK = ["multitask-dqn", TASK, "gym:MountainCar-v0", *SMALL, *SMALL_DQN[1:]]
SMALL_DISTILL = [
    "--set=envs_per_task=4",
    "--set=learning_starts_steps=200",
    "--set=batch_size_per_task=32",
    "--set=replay_capacity_steps=2000",
]


def call(*arguments: str | Path, cwd: Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs a verb to its end and checks its exit code."""
    result = subprocess.run(
        [sys.executable, "-m", "actor_mimic", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == expect, result.stderr
    return result


def model(run: Path) -> dict:
    """The weights of a run's last checkpoint."""
    newest = max((run / "checkpoints").glob("step-*"))
    return load_file(newest / "model.safetensors")


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = model(one), model(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert tensor.equal(second[name]), name


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An expert of each algorithm, a student and a transfer, made by the verbs."""
    return made_once(tmp_path_factory, "verbs", make_runs)


def make_runs(root: Path) -> None:
    made = call("train-expert", TASK, *SMALL, *SMALL_PQN, "--run-dir=pqn", cwd=root)
    assert made.stdout == "pqn/checkpoints/step-000004096\n"
    call("train-expert", TASK, *SMALL, *SMALL_DQN, "--run-dir=dqn", cwd=root)
    call("distill", f"{TASK}=pqn", *SMALL, *SMALL_DISTILL, "--run-dir=student", cwd=root)
    call("transfer", TASK, "--from=student", *SMALL, *OTHER_DQN, "--run-dir=transfer", cwd=root)
    call(*SMALL_MULTITASK, "--run-dir=multitask", cwd=root)


STAGES = {
    "pqn": ["train-expert", TASK, *SMALL, *SMALL_PQN],
    "dqn": ["train-expert", TASK, *SMALL, *SMALL_DQN],
    "student": ["distill", f"{TASK}=pqn", *SMALL, *SMALL_DISTILL],
    "transfer": ["transfer", TASK, "--from=student", *SMALL, *OTHER_DQN],
    "multitask": SMALL_MULTITASK,
}


@pytest.mark.parametrize("stage", STAGES)
def test_killed_stage_goes_on_and_ends_with_the_same_weights(stage: str, runs: Path) -> None:
    """Kill -9 in the middle of the work, then the same command again: bit for bit as if never."""
    command = [*STAGES[stage], f"--run-dir={stage}-killed"]
    process = subprocess.Popen(
        [sys.executable, "-m", "actor_mimic", *command],
        cwd=runs,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    checkpoints = runs / f"{stage}-killed" / "checkpoints"
    deadline = time.monotonic() + 60
    # After the first checkpoint that holds learning, and before the end.
    while not list(checkpoints.glob("step-0000010*")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not (runs / f"{stage}-killed" / "complete.json").exists(), "it had finished already"

    call(*command, cwd=runs)

    assert_same_weights(runs / stage, runs / f"{stage}-killed")
    steps = [
        json.loads(line)["step"]
        for line in (runs / f"{stage}-killed" / "records.jsonl").read_text().splitlines()
        if json.loads(line)["kind"] == "train"
    ]
    assert steps == sorted(set(steps)), "a record was written twice"


def test_another_seed_gives_other_weights(runs: Path) -> None:
    call("train-expert", TASK, *SMALL, *SMALL_PQN, "--seed=1", "--run-dir=pqn-1", cwd=runs)

    one, other = model(runs / "pqn"), model(runs / "pqn-1")
    assert any(not tensor.equal(other[name]) for name, tensor in one.items())


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 143)]
)
def test_a_signal_leaves_one_checkpoint_and_the_run_goes_on(
    number: signal.Signals, code: int, runs: Path
) -> None:
    name = f"signal-{number}"
    command = [*STAGES["pqn"], f"--run-dir={name}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "actor_mimic", *command], cwd=runs, stderr=subprocess.DEVNULL
    )
    records = runs / name / "records.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if records.exists() and '"train"' in records.read_text():
            break
        time.sleep(0.005)
    process.send_signal(number)
    assert process.wait(timeout=30) == code

    call(*command, cwd=runs)
    assert_same_weights(runs / "pqn", runs / name)


def test_a_finished_run_is_left_alone(runs: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (runs / "pqn").rglob("*") if p.name != ".lock"}
    result = call(*STAGES["pqn"], "--run-dir=pqn", "--json", cwd=runs)

    assert json.loads(result.stdout)["kind"] == "expert"
    after = {p: p.stat().st_mtime_ns for p in (runs / "pqn").rglob("*") if p.name != ".lock"}
    assert before == after


def test_another_configuration_is_refused(runs: Path) -> None:
    result = call(*STAGES["pqn"], "--run-dir=pqn", "--set=gamma=0.5", cwd=runs, expect=78)

    assert "gamma (stored: 0.99, asked: 0.5)" in result.stderr


def test_evaluate_prints_one_object(runs: Path) -> None:
    result = call("evaluate", "student", "--episodes=3", "--json", cwd=runs)

    shown = json.loads(result.stdout)
    assert shown.keys() == {"checkpoint", "protocol", "epsilon", "tasks"}
    scores = shown["tasks"][TASK]
    assert scores["episodes"] == 3 == len(scores["scores"])
    assert scores["mean"] == pytest.approx(sum(scores["scores"]) / 3)
    assert (shown["protocol"], shown["epsilon"]) == ("paper", 0.05)
    again = call("evaluate", "student", "--episodes=3", "--json", cwd=runs)
    assert json.loads(again.stdout) == shown


def test_evaluate_random_needs_tasks(runs: Path) -> None:
    call("evaluate", "random", cwd=runs, expect=2)
    shown = json.loads(
        call("evaluate", "random", "--tasks", TASK, "--episodes=2", "--json", cwd=runs).stdout
    )
    assert shown["epsilon"] == 1.0


def test_show_tells_step_and_parents(runs: Path) -> None:
    shown = json.loads(call("show", "transfer", "--json", cwd=runs).stdout)
    student = json.loads(call("show", "student", "--json", cwd=runs).stdout)

    assert shown["step"] >= 4096
    assert shown["parents"][0]["model_sha256"] == student["model_sha256"]


def test_the_report_of_one_run_has_the_command_that_began_it(runs: Path) -> None:
    path = call("report", "student", cwd=runs).stdout.strip()

    assert path == "student/report.html"
    text = (runs / path).read_text()
    assert re.search(rf"<pre [^>]*>actor-mimic distill {TASK}=pqn .* --run-dir=student\n", text)


def test_show_tells_the_scores_that_were_measured(runs: Path) -> None:
    shown = json.loads(call("show", "student", "--json", cwd=runs).stdout)
    done = json.loads((runs / "student" / "complete.json").read_text())

    (scores,) = shown["scores"]
    assert scores["tasks"][TASK]["mean"] == done["scores"][TASK]["mean"]
    text = call("show", "student", cwd=runs).stdout
    assert f"tasks\n  {TASK}  " in text
    assert "  torso\n" in text
    assert '{"' not in text
    assert "protocol paper, epsilon 0.05" in text
    assert "stderr" in text


@pytest.mark.parametrize("damage", [{"mean": "high"}, {"ci95": [1.0]}, {"stderr": {}}])
def test_kept_scores_that_are_none_are_named_and_not_shown(
    damage: dict, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs / "student", tmp_path / "student")
    for path in (tmp_path / "student" / "evaluations").glob("*.json"):
        kept = json.loads(path.read_text())
        kept["tasks"][TASK] |= damage
        path.write_text(json.dumps(kept))

    left, told = verb("show", str(tmp_path / "student"), "--json")

    assert left == 0, told
    assert json.loads(capsys.readouterr().out)["scores"] == []
    assert "is not shown" in told


def test_doctor_and_games(runs: Path) -> None:
    assert json.loads(call("doctor", "--json", cwd=runs).stdout)["atari_roms"] > 100
    assert json.loads(call("games", "--json", cwd=runs).stdout)["pong"] == [-20.7, 14.6]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["train-expert", "pnog"], 2, "did you mean 'pong'"),
        (["train-expert", "pong", "--algorthm", "dqn"], 2, "--algorithm"),
        (["train-expert", TASK, "--set", "gama=0.9"], 78, "did you mean 'gamma'"),
        (["train-expert", TASK, "--set", "gamma=high"], 78, "a number"),
        (["train-expert", TASK, "--set", "minibatch_size=100"], 78, "minibatch_size"),
        (["train-expert", TASK, "--algorithm=dqn", "--set=replay_capacity_steps=1e12"], 78, "GiB"),
        (
            ["train-expert", "pong", "--total-steps=1_000_000_000", "--set=num_envs=1_000_000"],
            78,
            "smaller num_envs",
        ),
        (["train-expert", "pong", "--set=width=200"], 78, "smaller width"),
        (
            ["distill", f"{TASK}=pqn", "--set=batch_size_per_task=1e10"],
            78,
            "(batch_size_per_task / samples_per_step, ",
        ),
        (
            [
                "distill",
                f"{TASK}=pqn",
                "--set=steps_per_task=1e11",
                "--set=batch_size_per_task=1e10",
            ],
            78,
            "smaller batch_size_per_task",
        ),
        (["show", "nowhere"], 65, "nowhere"),
        (["distill", "pong=pqn"], 65, "pong"),
        (["distill", "pong"], 2, "TASK=CHECKPOINT"),
        (["distill", f"{TASK}=pqn", "--preset=nature"], 2, "--preset"),
        (["distill", f"{TASK}=pqn", "--set=head=per_task"], 78, "write --head"),
        (["distill", f"{TASK}=pqn", "--set=objective=l2"], 78, "unknown objective"),
        (["transfer", "pong", "--from=student"], 65, "shape"),
        (["transfer", TASK, "--from=multitask"], 65, "an encoder for each of its tasks"),
        (["multitask-dqn"], 2, "at least one task"),
        (["multitask-dqn", TASK, TASK], 78, "tasks must be different"),
        (["multitask-dqn", TASK, "pnog"], 2, "did you mean 'pong'"),
        (["multitask-dqn", TASK, "pong"], 78, "all images of one shape"),
        (["multitask-dqn", TASK, "--head=branched"], 78, "no convolutions"),
        (["multitask-dqn", TASK, "--preset=fast"], 2, "--preset"),
        (["multitask-dqn", TASK, "--set=num_quantiles=2"], 78, "num_quantiles must be 1"),
        (["multitask-dqn", TASK, "--total-steps=9", "--set=steps_per_task=8"], 78, "twice"),
        (["run", "no-such-recipe"], 2, "demo"),
        (["train-expert", TASK, "--set=seed=1"], 78, "write --seed"),
        (["train-expert", TASK, "--set=preset=fast"], 78, "write --preset"),
        (["train-expert", TASK, "--preset=fast", "--algorithm=dqn"], 78, "contradicts preset"),
        (["train-expert", TASK, "--preset=natur"], 2, "--preset"),
        (["train-expert", TASK, "--set=task=pong"], 78, "write TASK"),
        (["train-expert", TASK, "--set=gamma=0.9", "--set=gamma=0.8"], 78, "gamma is given twice"),
        (["train-expert", TASK, "--total-steps=9", "--set=total_steps=8"], 78, "total_steps"),
        (["distill", f"{TASK}=pqn", "--total-steps=9", "--set=steps_per_task=8"], 78, "twice"),
        (["transfer", TASK, "--epsilon-start=1", "--set=epsilon_start=0.5"], 78, "twice"),
        (["transfer", TASK, "--from=student", "--set=width=1"], 78, "width with --from"),
        (["run", "nowhere.toml"], 65, "nowhere.toml: there is no such recipe"),
        (["import", "nowhere.zip", "--task", TASK, "-o", "imp"], 65, "nothing of that name"),
        (["distill"], 2, "TASK=CHECKPOINT"),
        (["distill", f"{TASK}=pqn", "--temperature", "1"], 2, "write --set temperature=VALUE"),
        (["train-expert", TASK, "--n-step=3"], 2, "write --set n_step=3"),
        (["distill", f"{TASK}=pqn", "--tasks", TASK], 2, "misplaced options"),
        (["train-expert", "ALE/Pong-v5"], 2, "did you mean 'pong'"),
        (["train", TASK], 2, "did you mean 'train-expert'"),
        (["evaluate", "random", "--tasks", "pnog"], 2, "did you mean 'pong'"),
        (["evaluate", "random", "--tasks", "pong", "pong"], 2, "every task once"),
        (["evaluate", "student", "--tasks", "gym:CartPole-v0"], 2, f"did you mean '{TASK}'"),
        (["play", "student", "--video=film.avi"], 2, ".mp4"),
        (["play", "student", "--video=nowhere/film.mp4"], 2, "nowhere"),
        (["play", "student", "--video=film.mp4", "--epsilon=2"], 2, "[0, 1]"),
        (["play", "student", "--video=film.mp4", "--max-steps=0"], 2, "--max-steps"),
        (["play", "student", "--video=film.mp4", "--task=pong"], 2, "not 'pong'"),
        (["play", "student"], 2, "--video FILE.mp4, --gif FILE.gif"),
        (["play", "student", "--gif=film.mp4"], 2, "--gif must name a .gif file"),
        (["play", "student", "--video=film.mp4", "--temperature=0"], 2, "--temperature"),
        (["play", "student", "--video=film.mp4", "--beside=zoo:pong"], 2, f"not '{TASK}'"),
        (["evaluate", "random", "--tasks", TASK, "--films"], 2, "--films"),
    ],
)
def test_bad_input_is_named(
    arguments: list[str], code: int, said: str, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs)
    left, told = verb(*arguments)

    assert left == code, told
    assert said in told
    assert "Traceback" not in told


def test_a_damaged_checkpoint_is_refused(runs: Path, tmp_path: Path) -> None:
    source = max((runs / "student" / "checkpoints").glob("step-*"))
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", source, copy], check=True)
    damaged = bytearray((copy / "model.safetensors").read_bytes())
    damaged[-1] ^= 1
    (copy / "model.safetensors").write_bytes(damaged)

    result = call("evaluate", str(copy), cwd=runs, expect=65)
    assert "model.safetensors" in result.stderr


def test_without_ale_py_the_install_line_is_named(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "ale_py.py").write_text("raise ImportError('not here')\n")
    result = subprocess.run(
        [sys.executable, "-m", "actor_mimic", "train-expert", "pong"],
        cwd=runs,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 69
    assert "pip install 'actor-mimic[atari]'" in result.stderr


def test_another_librarys_file_teaches_and_plays(tmp_path):
    torch.manual_seed(0)
    layers = [(120, 4), (84, 120), (2, 84)]
    state = {f"network.{2 * i}.weight": torch.randn(shape) for i, shape in enumerate(layers)}
    state |= {f"network.{2 * i}.bias": torch.randn(rows) for i, (rows, _) in enumerate(layers)}
    torch.save(state, tmp_path / "agent.cleanrl_model")
    file = "agent.cleanrl_model"

    made = call("import", file, "--task", TASK, "-o", "imported", "--json", cwd=tmp_path)
    small = [option for option in SMALL if "eval-every" not in option]
    call("distill", f"{TASK}={file}", *small, *SMALL_DISTILL, "--run-dir=student", cwd=tmp_path)

    sha256 = json.loads(made.stdout)["model_sha256"]
    shown = json.loads(call("show", "student", "--json", cwd=tmp_path).stdout)
    assert [parent["model_sha256"] for parent in shown["parents"]] == [sha256]
    call("evaluate", "imported", "--episodes=2", cwd=tmp_path)
    again = call("import", file, "--task", TASK, "-o", "again", cwd=tmp_path)
    assert again.stdout == "again\n"
    call("import", file, "--task", "gym:Acrobot-v1", "-o", "other", cwd=tmp_path, expect=65)
    assert not (tmp_path / "other").exists()
