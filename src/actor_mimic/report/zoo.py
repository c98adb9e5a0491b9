"""The shipped experts in words and tables, from their manifests and scores alone.

Every figure that is printed about them, in the terminal, on their cards and in the documents, is
read here from the files that are shipped.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from actor_mimic.protocols import FRAME_SKIP
from actor_mimic.report.aggregate import Score
from actor_mimic.report.contents import show_count
from actor_mimic.report.printable import printable
from actor_mimic.report.tables import MISSING, show_mean, show_score, show_share
from actor_mimic.storage.shipped import PREFIX, Shipped

# Protocol and epsilon of every shipped score. Epsilon 0.05 is the paper's; it costs real points in
# games that one wrong move can lose, so that each expert is shown at 0.01 as well.
MEASURED = (("paper", 0.05), ("paper", 0.01), ("sticky", 0.01))
HUMAN_AT, _, STICKY_AT = MEASURED
RANDOM_UNDER = HUMAN_AT[0]

NOTHING = (
    "no experts are shipped yet; train one (actor-mimic train-expert), and "
    "actor-mimic zoo --add RUN makes it one of the zoo"
)

_PAPER = [epsilon for protocol, epsilon in MEASURED if protocol == HUMAN_AT[0]]
_ALGORITHMS = {"pqn": "PQN", "dqn": "DQN"}


def facts(shipped: Shipped) -> dict[str, Any]:
    """What ``zoo --json`` says of one expert; every game's score is left to scores.json."""
    told = shipped.manifest.get("shipped", {})
    random = shipped.random_play(RANDOM_UNDER)
    return {
        "task": shipped.task,
        "step": shipped.manifest["step"],
        "preset": told.get("preset"),
        "command": told.get("command"),
        "bytes": shipped.size,
        "model_sha256": shipped.model_sha256,
        "random": random and _without_games(random["tasks"][shipped.task]),
        "evaluations": [
            {
                "protocol": result["protocol"],
                "epsilon": result["epsilon"],
                **_without_games(result["tasks"][shipped.task]),
            }
            for result in shipped.evaluations
            if result["checkpoint"] == shipped.model_sha256
        ],
    }


def _without_games(scores: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in scores.items() if name != "scores"}


def text_table(experts: Sequence[Shipped]) -> str:
    """One line per expert, for a terminal of 100 columns."""
    if not experts:
        return NOTHING
    headings = ["expert", "steps", "random", *(f"eps {epsilon:g}" for epsilon in _PAPER)]
    rows = [[*headings, "sticky", "human"], *map(_text_cells, experts)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    total = sum(expert.size for expert in experts)
    lines.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    lines.append(
        f"{total / 1e6:.1f} MB in all. Raw scores, mean [95 % interval]. Protocol paper, human at "
        f"eps {HUMAN_AT[1]:g}; sticky: that\nprotocol, eps {STICKY_AT[1]:g}. How one was trained: "
        f"actor-mimic show {PREFIX}NAME"
    )
    return "\n".join(lines)


def markdown_table(experts: Sequence[Shipped]) -> str:
    """The table of the documents."""
    columns = [f"`{protocol}`, epsilon {epsilon:g}" for protocol, epsilon in MEASURED]
    rows = [["expert", "steps", "random play", *columns, "human-normalised", "games", "MB"]]
    rows.append(["---"] * len(rows[0]))
    for expert in experts:
        scores = [score(expert, *setting) for setting in MEASURED]
        rows.append(
            [
                f"`{PREFIX}{expert.name}`",
                f"{expert.manifest['step']:,}",
                show_mean(_random(expert)),
                *map(show_score, scores),
                show_share(_human(expert)),
                _games(scores),
                _megabytes(expert),
            ]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def card(shipped: Shipped) -> str:
    """One paragraph about an expert, under its name."""
    manifest = shipped.manifest
    config, told, torso = manifest["config"], manifest["shipped"], manifest["network"]["torso"]
    algorithm = _ALGORITHMS.get(config["algorithm"], config["algorithm"])
    preset = f", preset `{told['preset']}`" if told["preset"] else ""
    step, budget = manifest["step"], config["total_steps"]
    taken_at = f" of a run of {budget:,}" if step < budget else ""
    centred = ", centred" if torso.get("centred") else ""
    rounded = "kernels, matrices and background" if centred else "kernels and matrices"
    sentences = [
        f"A Q-network (`{torso['kind']}`, width {torso['width']:g}, norm {torso['norm']}{centred}) "
        f"for {printable(shipped.task, max_length=60)}.",
        f"It learnt from random weights by {algorithm}{preset}, in {step:,} steps{taken_at} "
        f"({FRAME_SKIP} frames each) with seed {config['seed']} under the protocol "
        f"`{manifest['protocol']}`: `{printable(told['command'])}`.",
        f"The {rounded} of its torso are stored in {told['weights']}, "
        f"everything else in float32 ({_megabytes(shipped)} MB).",
        f"Raw scores of this very file: {_measured(shipped)}.",
    ]
    human = _human(shipped)
    if human is not None:
        sentences.append(
            f"At epsilon {HUMAN_AT[1]:g} under `{HUMAN_AT[0]}` that is {human:.0%} of the way from "
            "the published random play to the published human."
        )
    return f"# {PREFIX}{shipped.name}\n\n{' '.join(sentences)}\n"


def _measured(shipped: Shipped) -> str:
    """``12.3 [10.1, 14.0] under `paper` at epsilon 0.05, ... (means of 100 games, ...)``."""
    scores = {setting: score(shipped, *setting) for setting in MEASURED}
    figures = ", ".join(
        f"{show_score(found)} under `{protocol}` at epsilon {epsilon:g}"
        for (protocol, epsilon), found in scores.items()
        if found is not None
    )
    games = _games(list(scores.values()))
    return f"{figures} (means of {games} games, with 95 % bootstrap intervals)"


def _text_cells(expert: Shipped) -> list[str]:
    return [
        PREFIX + expert.name,
        show_count(expert.manifest["step"]),
        show_mean(_random(expert)),
        *(show_score(score(expert, HUMAN_AT[0], epsilon)) for epsilon in _PAPER),
        show_mean(score(expert, *STICKY_AT)),
        show_share(_human(expert)),
    ]


def score(expert: Shipped, protocol: str, epsilon: float) -> Score | None:
    """What it scored so; None if that was not measured."""
    return _as_score(expert.scores(protocol, epsilon))


def _random(expert: Shipped) -> Score | None:
    """Of random play."""
    result = expert.random_play(RANDOM_UNDER)
    return _as_score(result and result["tasks"][expert.task])


def _as_score(found: dict[str, Any] | None) -> Score | None:
    if found is None:
        return None
    interval = found["ci95"]
    return Score(
        found["mean"],
        None if interval is None else (interval[0], interval[1]),
        found["episodes"],
        found["human_normalised"],
    )


def _human(expert: Shipped) -> float | None:
    found = score(expert, *HUMAN_AT)
    return None if found is None else found.human_normalised


def _games(scores: Sequence[Score | None]) -> str:
    """How many were played for each figure."""
    numbers = sorted({found.episodes or 0 for found in scores if found is not None})
    return " or ".join(str(number) for number in numbers) or MISSING


def _megabytes(expert: Shipped) -> str:
    return f"{expert.size / 1e6:.1f}"
