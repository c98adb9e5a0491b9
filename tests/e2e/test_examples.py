"""Every command, every block of Python and every script that the documents show, run."""

import json
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gymnasium
import pytest
from documented import EXAMPLES, ROOT, Runner, blocks, commands
from in_process import restore_process

from actor_mimic.config import Config
from actor_mimic.flat_config import build_config
from actor_mimic.recipes.load import load_recipe

README, DOCS = ROOT / "README.md", ROOT / "docs"
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if blocks(page)]
# Their reader has run the demo; that of the other pages has done all that the README says.
FIRST_PAGES = ("tutorial.md", "results.md")

pytestmark = pytest.mark.timeout(600)  # for a machine that does other work


@contextmanager
def in_directory(directory: Path) -> Iterator[Runner]:
    with pytest.MonkeyPatch.context() as patch:
        yield Runner(directory, patch)
    restore_process()


@pytest.fixture(scope="session")
def after_readme(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the README's reader has: the demo, and all that its commands made."""
    home = tmp_path_factory.mktemp("readme")
    with in_directory(home) as runner:
        runner.command(["make", "demo"])
        runner.page(README)
    return home


def agents_of_others(home: Path) -> None:
    """What the reader of a page on other libraries has already."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from stable_baselines3 import DQN, PPO
        from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

        DQN("MlpPolicy", "CartPole-v1", buffer_size=10).save(home / "dqn.zip")
        PPO("MlpPolicy", "Acrobot-v1", n_steps=8, batch_size=8).save(home / "ppo.zip")
        envs = DummyVecEnv([lambda: gymnasium.make("CartPole-v1")])
        VecNormalize(envs).save(str(home / "vecnormalize.pkl"))


GIVEN = {"bring-your-own-teacher.md": agents_of_others}


def test_the_readme(after_readme: Path) -> None:
    assert (after_readme / "runs/demo/report.html").is_file()
    assert (after_readme / "runs/small-transfer/report.html").is_file()
    assert (after_readme / "assault.mp4").is_file()


def test_the_commands_for_contributors(tmp_path: Path) -> None:
    with in_directory(tmp_path) as runner:
        runner.page(ROOT / "CONTRIBUTING.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page(
    page: Path, tmp_path: Path, after_readme: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    done = "runs/demo" if page.name in FIRST_PAGES else "."
    shutil.copytree(after_readme / done, home / done)
    GIVEN.get(page.name, lambda _: None)(home)
    with in_directory(home) as runner:
        runner.page(page)
    if page.name == "examples.md":
        said = capfd.readouterr().out
        assert "one network plays gym:Acrobot-v1, gym:CartPole-v1\n" in said
        assert re.search(r"^(walked to the end in \d+ steps|got lost)$", said, re.MULTILINE)
        games = "boxing, crazy_climber, freeway, pong"
        assert f"runs/demo/student/seed-0 plays {games}; now: boxing" in said


def test_the_scripts_are_short_and_all_on_their_page() -> None:
    text = (DOCS / "examples.md").read_text()
    scripts = sorted((ROOT / "examples").glob("*.py"))

    assert [path.name for path in scripts] == sorted(EXAMPLES)
    for path in scripts:
        assert len(path.read_text().splitlines()) < 60, path
        assert f"python examples/{path.name}" in text
        assert f"{{literalinclude}} ../examples/{path.name}" in text


def test_the_tutorial_does_by_hand_what_the_demo_does() -> None:
    told = [words for words in tutorial() if words[1] != "train-expert"]

    stages = load_recipe("demo").stages
    by_hand = [configured(words) for words in told]
    assert by_hand == [stage.config for stage in stages if stage.kind != "evaluate"]
    (student,) = (stage for stage in stages if stage.kind == "distill")
    teachers = dict(word.split("=") for word in told[0][2 : 2 + len(student.teachers)])
    assert teachers == {task: str(parent) for task, parent in student.teachers.items()}


def test_the_tutorial_trains_an_expert_of_from_scratch() -> None:
    told = [configured(words) for words in tutorial() if words[1] == "train-expert"]

    assert told
    experts = [stage.config for stage in load_recipe("from-scratch").stages]
    assert all(config in experts for config in told)


LEARNING = {"train-expert": "expert", "distill": "distill", "transfer": "transfer"}


def tutorial() -> list[list[str]]:
    """Its commands that learn, in order."""
    shown = (block.text for block in blocks(DOCS / "tutorial.md") if block.language == "sh")
    found = (words for text in shown for words in commands(text))
    return [words for words in found if len(words) > 1 and words[1] in LEARNING]


def configured(words: list[str]) -> Config:
    """What a command that learns asks for."""
    return build_config(LEARNING[words[1]], asked(words[1], words[2:]))


def asked(verb: str, words: list[str]) -> dict:
    """The settings of a command line, read in the simplest way there is."""
    named = [word for word in words[: words.index("--total-steps")] if not word.startswith("--")]
    tasks = [word.partition("=")[0] for word in named]
    values: dict = {"tasks": tasks} if verb == "distill" else {"task": tasks[0]}
    options = words[words.index("--algorithm") :] if verb == "transfer" else words[len(named) :]
    for option, value in zip(options[::2], options[1::2], strict=True):
        name = option.removeprefix("--").replace("-", "_")
        values |= dict([value.split("=")]) if name == "set" else {name: value}
    if verb == "distill":
        total = int(values.pop("total_steps").replace("_", ""))
        values["steps_per_task"] = total // len(tasks)
    return values


class TestFileFormats:
    """The tables of files.md beside files that a run has written."""

    @staticmethod
    def documented(heading: str) -> list[set[str]]:
        """First columns of the tables under a heading."""
        text = (DOCS / "files.md").read_text()
        (body,) = re.findall(
            rf"^### {re.escape(heading)}\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL
        )
        tables = re.findall(r"(?:^\|.*\n)+", body, re.MULTILINE)
        return [set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) for table in tables]

    @pytest.mark.parametrize(
        ("heading", "pattern"),
        [
            ("run.json", "demo/student/seed-0/run.json"),
            ("complete.json", "demo/student/seed-0/complete.json"),
            ("best.json", "expert-assault-pqn-0/best.json"),
            ("evaluations/*.json", "demo/student/seed-0/evaluations/*.json"),
            ("recipe.json", "demo/recipe.json"),
            ("MANIFEST.json", "demo/student/seed-0/checkpoints/*/MANIFEST.json"),
            ("MANIFEST.json", "expert-assault-pqn-0/checkpoints/*/MANIFEST.json"),
        ],
    )
    def test_keys(self, heading: str, pattern: str, after_readme: Path) -> None:
        (documented,) = self.documented(heading)
        found = [json.loads(p.read_text()) for p in (after_readme / "runs").glob(pattern)]

        assert found
        for content in found:
            # What only some kinds have is told below the table.
            assert content.keys() - {"teacher_parameters", "tensor_origins"} == documented

    def test_records(self, after_readme: Path) -> None:
        keys, kinds = self.documented("records.jsonl")
        records = [
            json.loads(line)
            for path in (after_readme / "runs").rglob("records.jsonl")
            for line in path.read_text().splitlines()
        ]

        assert {key for record in records for key in record} == keys
        assert {record["kind"] for record in records} == kinds
