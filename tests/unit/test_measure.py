"""Kept figures: played once, and again only where they would not be the same."""

import json

import numpy as np
import pytest

from actor_mimic.errors import DataError, Interrupted
from actor_mimic.protocols import PROTOCOLS
from actor_mimic.stages import measure as module
from actor_mimic.stages.measure import Measuring, measure
from actor_mimic.storage.run_dir import installed_versions
from actor_mimic.storage.shipped import RANDOM

CARTPOLE = "gym:CartPole-v1"


def measuring(directory, **changes):
    arguments = {
        "directory": directory,
        "protocol": PROTOCOLS["paper"],
        "epsilon": 0.05,
        "episodes": 2,
        "seed": 0,
        "num_threads": 1,
        "stop": lambda: None,
        "on_game": lambda *_: None,
    }
    return Measuring(**(arguments | changes))


class Policy:
    """Pushes right, and counts how often it was asked."""

    def __init__(self):
        self.asked = 0

    def __call__(self, obs):
        self.asked += 1
        return {task: np.ones(len(own), dtype=np.int64) for task, own in obs.items()}


def only_file(directory):
    (path,) = (directory / "evaluations").iterdir()
    return path


def test_a_figure_says_how_it_came_about(tmp_path):
    measure(None, RANDOM, [CARTPOLE], measuring(tmp_path, seed=7))

    path = only_file(tmp_path)
    assert path.name == "random-gym-CartPole-v1-paper-1-2-7.json"
    kept = json.loads(path.read_text())
    assert kept.keys() == {"checkpoint", "protocol", "epsilon", "tasks", "seed", "versions"}
    installed = installed_versions()
    packages = ("torch", "ale-py", "gymnasium", "numpy")
    assert (kept["seed"], kept["versions"]) == (7, {name: installed[name] for name in packages})


def test_what_is_kept_is_not_played_again(tmp_path):
    first = measure(Policy(), "a" * 64, [CARTPOLE], measuring(tmp_path))
    again = Policy()

    assert measure(again, "a" * 64, [CARTPOLE], measuring(tmp_path)) == first
    assert again.asked == 0
    measure(again, "a" * 64, [CARTPOLE], measuring(tmp_path, seed=1))
    assert again.asked > 0
    assert len(list((tmp_path / "evaluations").iterdir())) == 2


def test_other_versions_are_played_again(tmp_path, monkeypatch):
    measure(Policy(), "a" * 64, [CARTPOLE], measuring(tmp_path))
    newer = installed_versions() | {"numpy": "99.0"}
    monkeypatch.setattr(module, "installed_versions", lambda: newer)
    again = Policy()
    measure(again, "a" * 64, [CARTPOLE], measuring(tmp_path))

    assert again.asked > 0
    assert json.loads(only_file(tmp_path).read_text())["versions"]["numpy"] == "99.0"
    elsewhere = Policy()
    (tmp_path / "student").mkdir()
    here = measuring(tmp_path / "student")
    measure(elsewhere, "a" * 64, [CARTPOLE], here, also_look_in=tmp_path)
    assert elsewhere.asked == 0
    assert only_file(here.directory).read_text() == only_file(tmp_path).read_text()


def test_a_task_that_is_done_is_kept_whatever_becomes_of_the_others(tmp_path):
    other = "gym:Acrobot-v1"  # takes longer
    kept = measuring(tmp_path, stop=lambda: 15 if (tmp_path / "evaluations").exists() else None)
    with pytest.raises(Interrupted):
        measure(Policy(), "a" * 64, [other, CARTPOLE], kept)

    assert "CartPole" in only_file(tmp_path).name
    content = only_file(tmp_path).read_bytes()
    again, told = Policy(), []

    def on_game(title, finished, total):
        told.append(finished)
        assert (title, total) == ("2 tasks", 4)

    both = measure(again, "a" * 64, [other, CARTPOLE], measuring(tmp_path, on_game=on_game))
    # All are played again, since games may depend on what is played beside them.
    assert (told[0], told[-1]) == (0, 4)
    assert told == sorted(set(told))
    assert list(both) == [other, CARTPOLE]
    assert content in [path.read_bytes() for path in (tmp_path / "evaluations").iterdir()]
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    assert both == measure(Policy(), "a" * 64, [other, CARTPOLE], measuring(fresh))
    asked = again.asked
    assert both == measure(again, "a" * 64, [other, CARTPOLE], measuring(tmp_path))
    assert again.asked == asked


@pytest.mark.parametrize("damage", ["[]", '{"tasks": {}}', '{"tasks": {"gym:CartPole-v1": {}}}'])
def test_a_damaged_figure_is_named(tmp_path, damage):
    measure(None, RANDOM, [CARTPOLE], measuring(tmp_path))
    path = only_file(tmp_path)
    content = json.loads(damage)
    if isinstance(content, dict):
        content["versions"] = json.loads(path.read_text())["versions"]
    path.write_text(json.dumps(content))

    with pytest.raises(DataError, match=r"expected the scores of gym:CartPole-v1"):
        measure(None, RANDOM, [CARTPOLE], measuring(tmp_path))
