"""Text that wants to be more than text, and a recipe of runs that has it in every field."""

import json

from report_runs import EXPERT, STUDENT, add_run, score, write_json

PAYLOADS = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "</style><style>*{display:none}</style>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "{{7*7}}{% raw %}{# #}",
    "<!--",
    "]]><svg onload=alert(1)>",
    "</text></svg><iframe srcdoc=x>",
    "\x1b[31m\x07\x00",
    "\u202ereversed\u2028",
    "javascript:alert(1)",
    "=cmd()|'/C calc'!A1",
    "&lt;b&gt;&#x3c;b&#x3e;",
    r"$\frac{1}{0}$ \input{x} $",
    "\ud800 lone",
    "\u4e2d\u6587 \U0001f3ae ",
]
FIELDS = [
    "recipe",
    "description",
    "recipe command",
    "task",
    "new task",
    "protocol",
    "kind",
    "begun",
    "package",
    "version",
    "setting",
    "value",
    "parent",
    "budget",
    "tensor",
    "origin",
    "metric",
    "whose evaluation",
    "broken file",
    "not a number",
]


def hostile_recipe(root, say):
    """A recipe with what `say` has to say in every field that is text."""
    write_json(root / "recipe.json", {
        "recipe": say("recipe"), "description": say("description"),
        "command": say("recipe command"), "stages": [{"name": "expert"}, {"name": say("parent")}],
    })  # fmt: skip
    task, new, protocol = say("task"), say("new task"), say("protocol")
    shared = {"protocol": protocol, say("setting"): say("value"), "total_steps": say("budget")}
    begun = {"created": say("begun"), "versions": {say("package"): say("version")}}
    twenty, ten = (
        score(20.0, 19.0, 21.0) | {"episodes": say("not a number")},
        score(10.0, 9.0, 11.0),
    )
    add_run(root, "expert", "expert", {"task": task} | shared, scores={task: twenty}, sha=EXPERT,
            curve=[(0, 1.0), (100, 20.0)], begun=begun)  # fmt: skip
    student = add_run(root, "student", "distill", {"tasks": [task], "parents": [EXPERT]} | shared,
                      scores={task: ten}, sha=STUDENT, begun=begun)  # fmt: skip
    values = {f"{task}/mean": 5.0, f"{task}/agreement": 0.5, f"{task}/divergence": 0.1,
              say("metric"): 1.0}  # fmt: skip
    line = {"kind": "evaluation", "step": 100, "update": 1, "wall_s": 0.0, "values": values}
    (student / "records.jsonl").write_text(json.dumps(line) + "\n")
    random = score(0.0, -1.0, 1.0)
    for run in (student, root / "expert/seed-0"):
        content = {"checkpoint": "random", "protocol": protocol, "tasks": {task: random}}
        write_json(run / "evaluations/random.json", content)
    content = {"checkpoint": say("whose evaluation"), "protocol": protocol, "tasks": {task: ten}}
    write_json(student / "evaluations/who.json", content)
    for name, parents in (("cold", []), ("warm", [say("parent")])):
        arm = add_run(root, name, "transfer", {"task": new, "parents": parents} | shared,
                      scores={new: ten}, sha=name, curve=[(0, 1.0), (100, 9.0)])  # fmt: skip
        done = json.loads((arm / "complete.json").read_text())
        origins = [{"name": say("tensor"), "origin": say("origin"), "rows": 3}]
        write_json(arm / "complete.json", done | {"tensor_origins": origins})
        content = {"checkpoint": "random", "protocol": protocol, "tasks": {new: random}}
        write_json(arm / "evaluations/random.json", content)
    add_run(root, "odd", say("kind"), {"task": task} | shared, begun=begun)
    write_json(root / "odd/seed-0/complete.json", say("broken file"))  # no object
    return root
