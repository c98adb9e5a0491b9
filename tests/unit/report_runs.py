"""Small runs for tests of the report: directories with numbers that can be worked by hand."""

import json

EXPERT, STUDENT = "e" * 64, "f" * 64


def score(mean, low, high, episodes=30):
    return {"mean": mean, "ci95": [low, high], "episodes": episodes, "scores": []}


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def add_run(
    root, name, kind, config, *, scores=None, sha=None, curve=(), training=(), seed=0, begun=None
):
    run = root / name / f"seed-{seed}"
    config = {"seed": seed, "protocol": "paper", "total_steps": 100, "parents": [], **config}
    versions = {"torch": "2.13.0", "ale-py": None}
    content = {"stage": kind, "config": config, "seed": seed, "versions": versions}
    write_json(run / "run.json", content | {"created": "2026-01-01T00:00:00+00:00"} | (begun or {}))
    lines = [
        {
            "kind": kind,
            "step": step,
            "update": 0,
            "wall_s": 0.0,
            "values": {f"{config.get('task')}/{name}": mean},
        }
        for points, kind, name in ((curve, "evaluation", "mean"), (training, "train", "score"))
        for step, mean in points
    ]
    (run / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if scores is not None:
        done = {"kind": kind, "checkpoint": "checkpoints/step-000000100", "model_sha256": sha}
        write_json(run / "complete.json", done | {"seconds": 61.0, "scores": scores})
        write_json(run / "checkpoints/step-000000100/MANIFEST.json", {})
    return run


def add_evaluation(run, who, task, values, protocol="paper"):
    content = {"checkpoint": who, "protocol": protocol, "epsilon": 0.05, "tasks": {task: values}}
    write_json(run / "evaluations" / f"{who[:16]}-{protocol}.json", content)


def small_recipe(root):
    """An expert at 20, random play at 0, a student at 18, two arms on another game."""
    stages = ["pong-expert", "student", "random-play", "cold", "warm"]
    write_json(
        root / "recipe.json",
        {
            "recipe": "mine",
            "description": "what it is",
            "command": "actor-mimic run mine",
            "stages": [{"name": name} for name in stages],
        },
    )
    add_run(
        root,
        "pong-expert",
        "expert",
        {"task": "pong"},
        scores={"pong": score(20.0, 19.0, 21.0)},
        sha=EXPERT,
    )
    student = add_run(
        root,
        "student",
        "distill",
        {"tasks": ["pong"], "parents": [EXPERT]},
        scores={"pong": score(18.0, 17.0, 19.0)},
        sha=STUDENT,
    )
    add_evaluation(student, "random", "pong", score(0.0, -1.0, 1.0))
    add_run(
        root,
        "random-play",
        "evaluate",
        {"tasks": ["breakout"]},
        scores={"breakout": score(2.0, 1.0, 3.0)},
        sha="random",
    )
    add_run(
        root,
        "warm",
        "transfer",
        {"task": "breakout", "parents": [STUDENT], "width": 1.0},
        scores={"breakout": score(10.0, 8.0, 12.0)},
        sha="a" * 64,
        curve=[(0, 4.0), (50, 8.0), (100, 12.0)],
    )
    add_run(
        root,
        "cold",
        "transfer",
        {"task": "breakout"},
        scores={"breakout": score(4.0, 2.5, 5.0)},
        sha="b" * 64,
        curve=[(0, 2.0), (50, 4.0), (100, 6.0)],
    )
    return root
