"""Rows D8 to D10: names, recipes and environment ids that strangers chose."""

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from actor_mimic.config import EvaluateConfig
from actor_mimic.envs.gymnasium import GymnasiumEnvs
from actor_mimic.recipes.load import load_recipe, parse_recipe
from actor_mimic.stages.launch import run_evaluate
from actor_mimic.stages.stage_run import Launch
from actor_mimic.storage.checkpoint import read_checkpoint, write_checkpoint
from actor_mimic.storage.durable import is_plain_path
from actor_mimic.storage.run_dir import open_run, slug, validate_run_name
from actor_mimic.teachers.own import tasks_in_file
from benchmarks.faults.forgery import ACTIONS, CARTPOLE, expert, forge
from benchmarks.faults.row import Row
from benchmarks.faults.verdicts import ACCEPTED, REFUSED, exit_code, tally, timed, tree

NUM_NAMES = 200
MODULE = "evil_module_of_a_stranger"
RECIPE = """\
name = {name}
seeds = [0]
[[stage]]
name = {stage}
kind = "expert"
task = "pong"
total_steps = 10
"""


def hostile_names() -> list[str]:
    """Two hundred names that are no plain part of a path."""
    whole = ["", ".", "..", "~", "*", "-", "-rf", "--help", "/", "//", "\\", "$HOME", "%00", "CON:"]
    whole += [
        "x" * 101,
        "x" * 300,
        "x" * 5000,
        "a" + "/b" * 50,
        "\u2025",
        "\u0661",
        ".git",
        "NUL\0",
    ]
    inside = [
        "/",
        "\\",
        "\0",
        "\n",
        "\r",
        "\t",
        " ",
        ";",
        "|",
        "&",
        "$(id)",
        "`id`",
        "'",
        '"',
        "<b>",
    ]
    inside += [
        "\x1b[31m",
        "\u202e",
        "\u200b",
        "\u00e9",
        "\U0001f600",
        "%2e%2e%2f",
        "{}",
        "=",
        "*",
        "?",
    ]
    before = [
        "../",
        "../../",
        "/",
        "./",
        "~/",
        "-",
        ".",
        " ",
        "\ufeff",
        "file://",
        "C:\\",
        "\\\\host\\",
    ]
    behind = ["/", "/..", "/../../x", "\n", "\0", " ", ":", "\\..\\x", "/.", "\0.json"]
    made = [*whole, *(f"a{middle}b" for middle in inside)]
    made += [f"{start}etc" for start in before] + [f"run{end}" for end in behind]
    made += [f"{start}x{middle}" for start, middle in itertools.product(before, inside)]
    return list(dict.fromkeys(made))[:NUM_NAMES]


def run_names(scratch: Path) -> Row:
    """D8: hostile names wherever a name becomes a path, and directories full of links."""
    root, outside = scratch / "root", scratch / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "kept.json").write_text("{}")
    names = hostile_names()
    before = tree(scratch)
    accepted = 0
    with open_run(root / "run", stage="expert", config={}) as run:
        before |= tree(scratch)
        for name in names:
            accepted += exit_code(lambda name=name: validate_run_name(name)) == ACCEPTED
            accepted += exit_code(lambda name=name: _recipe(name, "a")) == ACCEPTED
            accepted += exit_code(lambda name=name: _recipe("a", name)) == ACCEPTED
            # One directory in a run may be named with a file in it.
            accepted += not is_plain_path(name) and _is_written(partial(run.write_json, name, {}))
            accepted += _is_written(partial(_save_as, run.checkpoints, name))
            accepted += _leads_elsewhere(name)
    accepted += _links(scratch, outside)
    written = {path for path in tree(scratch) - before if not path.startswith(("root", "links"))}
    changed = (outside / "kept.json").read_text() != "{}"
    failures = accepted + len(written) + changed
    return Row(
        "D8",
        f"{len(names)} hostile names as runs, stages, files and tensors; runs full of links",
        len(names),
        failures,
        f"{accepted} accepted, {len(written) + changed} writes outside",
        "0 accepted, 0 writes outside",
        failures == 0,
    )


def recipes(scratch: Path) -> Row:
    """D9: recipes that are none, that mean what nobody can, or that nest without end."""
    load_recipe("from-scratch")
    codes, slowest = {}, 0.0
    for number, (name, text) in enumerate(hostile_recipes().items()):
        path = scratch / f"{number}.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        codes[name], seconds = timed(lambda path=path: load_recipe(path))
        slowest = max(slowest, seconds)
    failures = sum(code not in REFUSED for code in codes.values())
    return Row(
        "D9",
        "recipes with code, aliases, duplicates, wrong types, endless nesting",
        len(codes),
        failures,
        f"{len(codes) - failures} of {len(codes)} refused, exit codes {tally(codes)}, "
        f"at most {slowest:.2f} s",
        f"{len(codes)} of {len(codes)}, 2 s",
        failures == 0 and slowest <= 2.0,
    )


def hostile_recipes() -> dict[str, str | bytes]:
    """By what is wrong with them."""
    good = RECIPE.format(name='"a"', stage='"b"')
    lines = {
        "a task that is a word": "task = no",
        "a time for a count": "total_steps = 12:30:00",
        "a date for a count": "total_steps = 2026-01-01",
        "text for a count": 'total_steps = "many"',
        "truth for a count": "total_steps = true",
        "half a step": "total_steps = 1.5",
        "infinite steps": "total_steps = inf",
        "steps beyond any float": "total_steps = 1e999",
        "steps of 400 digits": f"total_steps = 1{'0' * 400}",
        "steps of 10,000 digits": f"total_steps = 1{'0' * 10_000}",
        "a rate that is none": "learning_rate = nan",
        "a table for a rate": "learning_rate = { a = 1 }",
        "the same key twice": "total_steps = 10",
        "an unknown key": "__class__ = 1",
        "code for a key": "\"__import__('os')\" = 1",
        "a seed beyond 64 bits": "seeds = [9223372036854775808]",
        "a stage's name that is a path": 'name = "../../x"',
    }
    changed = {
        name: good.replace("task", "tusk") + line + "\n"
        if name == "a task that is a word"
        else good + line + "\n"
        for name, line in lines.items()
    }
    deep = 30_000  # what a recipe has room for
    return changed | {
        "tags of YAML": "!!python/object/apply:os.system ['id']\n",
        "aliases of YAML": "a: &a [x, x]\nb: &b [*a, *a]\n",
        "JSON": json.dumps({"name": "a"}),
        "no text": b"\xff\xfe",
        "zeros": bytes(1000),
        "nothing": "",
        "more than any recipe": b"#" * (1 << 20),
        "arrays in arrays": good + "x = " + "[" * deep,
        "tables in tables": good + "x = " + "{a=" * deep,
        "a dotted name": "name" + ".a" * deep + " = 1\n",
        "a dotted header": "[" + ".".join("a" * deep) + "]\n",
        "a dotted stage": good + "x" + ".a" * deep + " = 1\n",
        "2,000 tables": "".join(f"[a{i}]\nb = 1\n" for i in range(2_000)),
        "names in quotes with dots": good + '"a".' * 10_000 + "b = 1\n",
        "spaces without end": good + 'x = """\n[' + " " * 60_000 + '\n"""\n',
        "dots without end": good + 'x = """\n[' + " ." * 30_000 + ']\n"""\n',
        "a stage that is its parent": good.replace('"expert"', '"transfer"') + 'parent = "b"\n',
        "a function for a teacher": 'name = "a"\n[[stage]]\nname = "b"\nkind = "distill"\n'
        'teachers = { pong = "os:system" }\n',
    }


def env_ids(scratch: Path) -> Row:
    """D10: ids that would have Gymnasium import a module, in recipes and in checkpoints."""
    canary = scratch / "canary"
    evil = f"gym:{MODULE}:Env-v0"
    honest = expert(scratch / "expert")
    card = forge(honest, scratch / "card", manifest={"tasks": {evil: ACTIONS}})
    two = {CARTPOLE: ACTIONS, f"{MODULE}:Env-v0": ACTIONS}
    cards = [card, forge(honest, scratch / "card-2", manifest={"tasks": two})]
    texts = [
        RECIPE.format(name='"a"', stage='"b"').replace('"pong"', json.dumps(task))
        for task in (evil, f"{MODULE}:Env-v0", f"gym:gym:{MODULE}:Env-v0", f"zoo:{MODULE}")
    ]
    texts += [
        f'name = "a"\n[[stage]]\nname = "b"\nkind = "distill"\nteachers = {{ "{evil}" = "./x" }}\n',
        'name = "a"\n[[stage]]\nname = "b"\nkind = "evaluate"\ncheckpoint = "random"\n'
        f'tasks = ["{evil}"]\n',
    ]
    codes = {}
    with _module(scratch, canary):
        for number, text in enumerate(texts):
            codes[f"recipe {number}"] = exit_code(
                lambda text=text: parse_recipe(text.encode(), "x")
            )
        for number, path in enumerate(cards):
            checkpoint = read_checkpoint(path)
            codes[f"card {number}"] = exit_code(lambda read=checkpoint: tasks_in_file(read))
            codes[f"evaluation {number}"] = exit_code(
                lambda read=checkpoint, n=number: list(
                    run_evaluate(EvaluateConfig(), Launch(scratch / f"run-{n}"), read)
                )
            )
        imported = canary.exists() or MODULE in sys.modules
        # The trap: named by the user himself, the module is imported.
        exit_code(lambda: GymnasiumEnvs(evil, num_envs=1, run_seed=0))
        assert canary.exists(), "the module of the canary does not work"
    failures = imported + sum(code not in REFUSED for code in codes.values())
    return Row(
        "D10",
        "ids that name a module, in recipes and in checkpoints",
        len(codes),
        failures,
        f"{int(imported)} modules imported; {len(codes)} ids, exit codes {tally(codes)}",
        "0 imported, all refused",
        failures == 0,
    )


def _recipe(name: str, stage: str) -> None:
    text = RECIPE.format(name=json.dumps(name), stage=json.dumps(stage))
    parse_recipe(text.encode("utf-8", "surrogatepass"), "x.toml")


def _is_written(write: Callable[[], object]) -> bool:
    try:
        write()
    except ValueError:  # names come from our own code here: a mistake of ours, not of a user
        return False
    return True


def _leads_elsewhere(task: str) -> bool:
    """Whether the part of a path that a task's name becomes is more than one plain part."""
    made: list[str] = []
    code = exit_code(lambda: made.append(slug(task)))
    return code == ACCEPTED and exit_code(lambda: validate_run_name(made[0])) != ACCEPTED


def _links(scratch: Path, outside: Path) -> int:
    """How many links out of a run are followed by what writes there."""
    links = scratch / "links"
    links.mkdir()
    followed = 0
    (links / "run").symlink_to(outside)
    followed += exit_code(lambda: open_run(links / "run", stage="x", config={})) == ACCEPTED
    for name in (".lock", "checkpoints", "records.jsonl", "evaluations"):
        run = links / f"with-{name}"
        run.mkdir()
        (run / name).symlink_to(outside if "." not in name else outside / f"new{name}")
        followed += exit_code(lambda run=run: _use(run)) == ACCEPTED
    # Replaced as a name, and not written through.
    run = links / "with-run.json"
    run.mkdir()
    (run / "complete.json").symlink_to(outside / "kept.json")
    with open_run(run, stage="x", config={}) as opened:
        opened.mark_complete({})
    return followed


def _use(run: Path) -> None:
    with open_run(run, stage="x", config={}) as opened:
        opened.records.sync()
        opened.write_json("evaluations/a.json", {})
        _save_as(opened.checkpoints, "model")


def _save_as(checkpoints: Path, name: str) -> None:
    tensors = {name: {"a": torch.ones(1)}}
    write_checkpoint(checkpoints, step=1, tensors=tensors, state={}, manifest={})


@contextmanager
def _module(scratch: Path, canary: Path) -> Iterator[None]:
    """A module that makes the canary when it is imported, where Python finds it."""
    home = scratch / "modules"
    home.mkdir()
    (home / f"{MODULE}.py").write_text(f"import os\nos.mkdir({str(canary.absolute())!r})\n")
    sys.path.insert(0, str(home.absolute()))
    try:
        yield
    finally:
        sys.path.remove(str(home.absolute()))
        sys.modules.pop(MODULE, None)
