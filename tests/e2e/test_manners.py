"""Manners of the command line: streams, pipes, terminals, secrets, names, help, completion."""

import inspect
import json
import os
import pty
import re
import select
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from in_process import restore_process
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from actor_mimic import errors
from actor_mimic.cli import VERBS, main
from actor_mimic.errors import ActorMimicError, Interrupted
from actor_mimic.report.printable import printable_lines
from tests.unit.command_line_names import command_line_names, help_of

ROOT = Path(__file__).parents[2]
TASK = "gym:CartPole-v1"
SMALL = [
    "--total-steps=1024",
    "--eval-every-steps=512",
    "--checkpoint-every-steps=512",
    "--threads=1",
    "--set=record_every_steps=256",
    "--set=eval_episodes=2",
    "--set=final_episodes=2",
    "--set=num_envs=8",
    "--set=rollout_steps=16",
    "--set=minibatch_size=64",
]
SECRETS = {
    "HF_TOKEN": "hf_canary0123456789",
    "HUGGING_FACE_HUB_TOKEN": "hf_other_canary0123456789",
    "WANDB_API_KEY": "canary" + 34 * "0",
}
KNOWN_TAGS = [
    "rollout/ep_rew_mean",
    "rollout/ep_len_mean",
    "rollout/exploration_rate",
    "train/loss",
    "train/learning_rate",
    "train/n_updates",
    "time/fps",
    "charts/episodic_return",
    "charts/episodic_length",
    "charts/SPS",
    "losses/td_loss",
    "losses/q_values",
    "eval/mean_reward",
    "eval/mean_ep_length",
]
PROGRAM = [sys.executable, "-m", "actor_mimic"]
# The console script, for what reads its name.
SCRIPT = f'actor-mimic() {{ {" ".join(PROGRAM)} "$@"; }}'


def call(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def in_process(*arguments: str) -> int:
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    restore_process()
    return leaving.value.code or 0


def on_a_terminal(*arguments: str, cwd: Path, **environment: str) -> str:
    """What a person sees who calls it there: both streams."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*PROGRAM, *arguments],
        cwd=cwd,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", **environment},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        seen = b""
        while select.select([ours], [], [], 100)[0]:
            try:
                part = os.read(ours, 65_536)
            except OSError:  # how Linux says that nobody is left at the other end
                break
            seen += part
        os.close(ours)
    assert process.returncode == 0
    return seen.decode()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that was made with secrets around it, one of them typed by mistake."""
    root = tmp_path_factory.mktemp("manners")
    typed = f"--wandb-project-name={SECRETS['HF_TOKEN']}"
    command = ["train-expert", TASK, *SMALL, "--run-dir=run", "--json", typed]
    result = call(*command, cwd=root, **SECRETS)
    assert result.returncode == 0, result.stderr
    (root / "stdout").write_text(result.stdout)
    (root / "stderr").write_text(result.stderr)
    return root / "run"


def test_data_is_on_one_stream_and_the_rest_on_the_other(run: Path) -> None:
    assert json.loads((run.parent / "stdout").read_text())["run_dir"] == "run"
    told = (run.parent / "stderr").read_text()
    assert f"expert {TASK}: final: {TASK}" in told
    assert "\x1b" not in told


def test_no_secret_is_kept_or_told(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, secret in SECRETS.items():
        monkeypatch.setenv(name, secret)
    monkeypatch.chdir(run.parent)
    for arguments in (["show", "run"], ["doctor"], ["report", "run"]):
        assert in_process(*arguments) == 0
        told = capsys.readouterr()
        (run.parent / f"told-{arguments[0]}").write_text(told.out + told.err)
    command = json.loads((run / "run.json").read_text())["command"]
    assert "--wandb-project-name=$HF_TOKEN" in command
    files = [path for path in run.parent.rglob("*") if path.is_file()]
    assert {"records.jsonl", "run.json", "MANIFEST.json", "told-show"} <= {p.name for p in files}
    for path in files:
        content = path.read_bytes()
        for secret in SECRETS.values():
            assert secret.encode() not in content, path


def test_a_secret_in_an_error_of_another_library_is_not_told() -> None:
    text = f"401 for {SECRETS['HF_TOKEN']}\n  key {SECRETS['WANDB_API_KEY']}"
    assert printable_lines(text, SECRETS) == "401 for $HF_TOKEN\n  key $WANDB_API_KEY"


def test_curves_are_written_under_the_names_people_know(run: Path) -> None:
    reader = EventAccumulator(str(run), size_guidance={"scalars": 0})
    reader.Reload()
    columns, *rows = (line.split(",") for line in (run / "progress.csv").read_text().splitlines())
    for tag in KNOWN_TAGS:
        column = columns.index(tag)
        # The events have single precision.
        cells = {(int(row[0]), float(np.float32(row[column]))) for row in rows if row[column]}
        assert tag in reader.Tags()["scalars"], tag
        events = [(event.step, event.value) for event in reader.Scalars(tag)]
        assert len(dict(events)) == len(events), f"{tag}: a step is there twice"
        assert cells >= set(events), tag


def test_a_terminal_gets_bars_unless_it_is_told_not_to(run: Path) -> None:
    command = ["evaluate", "run", "--episodes=1"]
    assert "\x1b[" in on_a_terminal(*command, cwd=run.parent)
    seen = on_a_terminal(*command, cwd=run.parent, NO_COLOR="1")
    assert "\x1b" not in seen
    assert f"evaluating {TASK}: 1 of 1 games" in seen


@pytest.mark.parametrize("plain", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_help_has_colours_where_they_are_wanted(plain: dict[str, str], tmp_path: Path) -> None:
    assert ("\x1b[" in on_a_terminal("show", "--help", cwd=tmp_path, **plain)) == (not plain)


@pytest.mark.parametrize("arguments", ["--help", "run --help", "games", "--version"])
def test_a_reader_may_leave(arguments: str, tmp_path: Path) -> None:
    # A reader that has gone before the first line is written.
    result = subprocess.run(
        ["bash", "-c", f"{SCRIPT}; (sleep 0.2; actor-mimic {arguments}; echo code $? >&2) | true"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.stderr == "code 0\n"


def test_a_full_disk_under_the_output_is_an_error(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [*PROGRAM, "games"],
            cwd=tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert result.returncode == 74
    assert result.stderr == "error: [Errno 28] No space left on device\n"


def test_learning_goes_on_when_nobody_reads_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as nobody:
        monkeypatch.setattr("sys.stderr", nobody)
        assert in_process("train-expert", TASK, *SMALL, "--run-dir=run") == 0
    assert (tmp_path / "run" / "complete.json").exists()


def test_quiet_says_nothing_but_errors(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    assert in_process("evaluate", "run", "--episodes=1", "--json", "-q") == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert json.loads(told.out)["checkpoint"]
    assert in_process("evaluate", "nowhere", "-q") == 65
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: nowhere")


def test_hostile_names_cannot_steer_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert in_process("show", "\x1b[31mred\x07\u202e") == 65
    told = capsys.readouterr().err
    assert "[31mred" in told
    assert not set("\x1b\x07\u202e") & set(told)


def test_help_comes_at_once_and_without_pytorch(tmp_path: Path) -> None:
    """Time of the processor, since others work beside the tests."""
    code = (
        "import sys, time\nfrom actor_mimic.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit:\n    pass\n"
        "print(time.process_time(), 'torch' in sys.modules, file=sys.stderr)"
    )
    for verb in ("", *VERBS):
        arguments = [verb, "--help"] if verb else ["--help"]
        result = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        seconds, torch = result.stderr.split()
        assert torch == "False", verb
        assert float(seconds) < 1.0, verb


@pytest.mark.parametrize("verb", VERBS)
def test_help_begins_with_examples(verb: str) -> None:
    text = help_of(verb)
    assert f"actor-mimic {verb}" in text.split("positional")[0].split("For example:")[1]
    assert "None" not in text


@pytest.mark.parametrize("verb", VERBS)
def test_the_examples_of_help_are_understood(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read to the end, and not run."""
    text = inspect.getdoc(VERBS[verb]) or ""
    examples = re.findall(r"^ +actor-mimic (.*)$", text.replace("\\\n", " "), re.MULTILINE)
    for known in VERBS.values():  # some show another verb beside their own
        monkeypatch.setattr(known, "run", lambda _: 0)
    assert examples
    for line in examples:
        assert in_process(*shlex.split(line, comments=True)) == 0, line


def test_names_stay() -> None:
    """See `command_line_names`: a name that goes is a change that breaks."""
    golden = ROOT / "tests/unit/command_line_names.txt"
    assert command_line_names() == golden.read_text()


def test_every_exit_code_is_documented() -> None:
    rows = re.findall(
        r"^\| (\d+) \| `?(\w*)`? ?\|", (ROOT / "docs/exit-codes.md").read_text(), re.MULTILINE
    )
    raised = {
        (str(kind.exit_code), kind.__name__)
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, ActorMimicError)
    } - {(str(kind.exit_code), kind.__name__) for kind in (ActorMimicError, Interrupted)}
    raised |= {("130", "Interrupted"), ("143", "Interrupted"), ("0", ""), ("1", "")}

    assert set(rows) == raised
    text = help_of()
    for code, _ in rows:
        assert code == "1" or re.search(rf"\b{code} [a-z]", text), code


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        ("trainexpert pong", "train-expert"),
        ("train-expert pong --algorthm dqn", "--algorithm"),
        ("train-expert pong --preset natur", "nature"),
        ("evaluate random --tasks pong --protocol papr", "paper"),
        ("train-expert pong --set gama=0.9", "gamma"),
        ("run dmo", "demo"),
        ("show zoo:pogn", "zoo:pong"),
        ("--print-completion bsh", "bash"),
    ],
)
def test_near_misses_are_asked_about(
    arguments: str, asked: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert in_process(*arguments.split()) in (2, 65, 78)
    told = " ".join(capsys.readouterr().err.split())
    assert re.search(rf"(did you mean|[Pp]erhaps you meant:?) '?{asked}", told), told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            "train-expert pong --total-steps 1e6",
            "a whole number, such as 30 or 1_000_000, got '1e6'",
        ),
        ("evaluate random --tasks pong --episodes=1.5", "or 1_000_000, got '1.5'"),
        ("play zoo:pong --epsilon low", "--epsilon: expected a number, got 'low'"),
        ("play zoo:pong --temperature=", "--temperature: expected a number, got ''"),
        ("import a.zip --task pong -o b --claimed-score high", "expected a number, got 'high'"),
    ],
)
def test_what_is_no_number_is_told_in_one_sentence(
    arguments: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert in_process(*arguments.split()) == 2
    said = capsys.readouterr().err
    assert told in " ".join(said.replace("│", " ").split())
    assert "NoneType" not in said


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_verbs_options_and_choices(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = call("--print-completion", shell, cwd=tmp_path).stdout
    (tmp_path / "script").write_text(script)
    asked = {"tr": "train-expert transfer", "train-expert pong --pre": "--preset --precision"}
    asked |= {
        "train-expert pong --preset ": "fast classic gpu nature sb3",
        "distill --head s": "shared",
    }
    for line, expected in asked.items():
        words = f"actor-mimic {line}".split(" ")
        given = " ".join(f"'{word}'" for word in words)
        tell = {
            "bash": f"source ./script; COMP_WORDS=({given}); COMP_CWORD={len(words) - 1}; "
            '_tyro_actor_mimic; echo "${COMPREPLY[*]}"',
            "zsh": "compdef() {}; _describe() { print -l -- ${(P)2} | cut -d: -f1 }; "
            f"words=({given}); CURRENT={len(words)}; source ./script",
            "fish": f"source ./script; complete -C 'actor-mimic {line}' | cut -f1",
        }[shell]
        clean = {"bash": "--norc", "zsh": "-f", "fish": "--no-config"}[shell]
        found = subprocess.run(
            [shell, clean, "-c", tell],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert sorted(found.stdout.split()) == sorted(expected.split()), found


def test_version_names_what_computes(capsys: pytest.CaptureFixture[str]) -> None:
    assert in_process("--version") == 0
    told = dict(line.split(" ", 1) for line in capsys.readouterr().out.splitlines())
    assert next(iter(told)) == "actor-mimic"
    assert {"python", "torch", "ale-py", "gymnasium"} <= told.keys()


def test_settings_say_where_they_are_from(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    for name, value in {
        "GAMMA": "0.5",
        "LAM": "0.1",
        "BATCH_SIZE": "8",
        "FAULT": "x:1:eio",
    }.items():
        monkeypatch.setenv(f"ACTOR_MIMIC_{name}", value)
    command = ["train-expert", TASK, "--total-steps=9999", "--set=lam=0.9", "--print-config"]

    assert in_process(*command, "--run-dir=run", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    found = {name: (entry["value"], entry["from"]) for name, entry in shown["settings"].items()}
    assert found["task"] == (TASK, "TASK")
    assert found["total_steps"] == (9999, "--total-steps")
    assert found["lam"] == (0.9, "--set")
    assert found["gamma"] == (0.5, "ACTOR_MIMIC_GAMMA")
    assert found["algorithm"] == ("pqn", "preset classic")
    assert found["epochs"] == (4, "preset classic")
    assert found["rollout_steps"] == (32, "default")
    assert found["threads"] == (1, "run/run.json")
    assert "batch_size" not in found
    assert in_process(*command, "--run-dir=run", "--json", "--threads=3", "--precision=auto") == 0
    shown = json.loads(capsys.readouterr().out)["settings"]
    assert shown["threads"] == {"value": 3, "from": "--threads"}
    assert shown["device"] == {"value": "cpu", "from": "run/run.json"}
    assert in_process(*command, "--run-dir=other") == 0
    assert re.search(r"^gamma = 0\.5 +# ACTOR_MIMIC_GAMMA$", capsys.readouterr().out, re.MULTILINE)
    assert not (run.parent / "other").exists()


RECIPE = f"""name = "mine"
scale = 0.5
[defaults.expert]
total_steps = 200000
num_envs = 8
preset = "nature"

[[stage]]
name = "expert"
kind = "expert"
task = "{TASK}"
num_envs = 4

[[stage]]
name = "student"
kind = "distill"
teachers = {{ "{TASK}" = "expert@best" }}

[[stage]]
name = "again"
kind = "transfer"
task = "{TASK}"
parent = "expert"

[[stage]]
name = "play"
kind = "evaluate"
checkpoint = "student"
episodes = 3
"""


def test_settings_of_a_recipe_say_where_they_are_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(RECIPE)

    assert in_process("run", "mine.toml", "--print-config", "--json") == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    expert, student, again, play = (
        {name: (entry["value"], entry["from"]) for name, entry in stage["settings"].items()}
        for stage in stages
    )
    assert expert["task"] == (TASK, "mine.toml:11")
    assert expert["total_steps"] == (100_000, "mine.toml:4 x scale 0.5")
    assert expert["num_envs"] == (4, "mine.toml:12")
    assert expert["batch_size"] == (32, "preset nature")
    assert expert["double"] == (False, "preset nature")
    assert expert["record_every_steps"] == (2000, "default")
    assert student["tasks"] == ([TASK], "mine.toml:17")
    assert student["steps_per_task"] == (50_000, "default x scale 0.5")
    assert student["width"] == (0.5, "default")
    assert stages[1]["parents"] == {TASK: "expert@best"}
    # Its parent decides them.
    assert not {"network", "width", "norm", "seed"} & again.keys()
    assert play == {
        "tasks": ([], "default"),
        "episodes": (3, "mine.toml:29"),
        "protocol": ("paper", "default"),
    }
    assert in_process("run", "mine.toml", "--print-config") == 0
    told = capsys.readouterr().out
    assert re.search(r"^num_envs = 4 +# mine\.toml:12$", told, re.MULTILINE)
    assert "# again (transfer), seeds 0\n# parent: expert\n" in told.replace("#   ", "# ")
    assert not Path("runs").exists()


def test_the_environment_has_no_unknown_settings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACTOR_MIMIC_GAMA", "0.5")
    assert in_process("train-expert", TASK, "--print-config") == 78
    told = capsys.readouterr().err
    assert "ACTOR_MIMIC_GAMA: no such setting; did you mean 'gamma'?" in told
