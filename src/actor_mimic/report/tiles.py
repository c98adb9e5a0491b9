"""The few numbers of a run that are worth a look from afar, at the head of its page."""

from collections.abc import Sequence
from dataclasses import dataclass

from actor_mimic.report.aggregate import STUDENTS, Collection, Run
from actor_mimic.report.contents import counted, roles, show_count, show_range
from actor_mimic.report.over_games import Estimate, OverGames
from actor_mimic.report.tables import show_number, show_share
from actor_mimic.report.transfers import Contest


@dataclass(frozen=True)
class Tile:
    """One number that is worth a look from afar."""

    value: str
    text: str
    note: str = ""


def headline(collection: Collection) -> str:
    """What was reached, in one sentence."""
    students = next(
        (runs for kind in STUDENTS if (runs := [r for r in collection.runs if r.kind == kind])), []
    )
    if students:
        games = len(students[0].tasks)
        verb = "plays" if any(run.complete for run in students) else "learns"
        return f"One network {verb} {counted(games, 'game')}"
    run = collection.runs[0]
    if (
        run.kind == "expert"
        and len({task for other in collection.runs for task in other.tasks}) > 1
    ):
        return f"{len(collection.runs)} experts"
    tasks = ", ".join(run.tasks[:3]) + (", ..." if len(run.tasks) > 3 else "")
    kinds = {"expert": "An expert of", "transfer": "A transfer to", "evaluate": "Games of"}
    return f"{kinds.get(run.kind, run.kind)} {tasks}"


def tiles(
    collection: Collection, overs: Sequence[OverGames], contests: Sequence[Contest]
) -> list[Tile]:
    """At most four numbers: scores, size, likeness, transfer."""
    found = []
    over = next((o for o in overs if o.scale == "expert" and o.estimates), None)
    if over is not None:
        iqm = over.estimates["IQM"]
        text = f"of {_experts(len(over.tasks))} score"
        spread = f"IQM over {counted(len(over.tasks), 'game')}{_interval(iqm)}"
        found.append(Tile(show_share(iqm.value), text, spread))
    run = next((run for run in collection.runs if run.kind == "distill"), None)
    if run is not None:
        found += _size_tile(collection, run) + _likeness_tile(run)
    elif len(collection.runs) == 1:
        return _score_tiles(collection.runs[0])
    return found + _transfer_tile(collection, contests)


def _score_tiles(run: Run) -> list[Tile]:
    """The final scores of a run that stands alone."""
    found = []
    for task, score in list(run.scores.items())[:4]:
        human = score.human_normalised
        notes = [
            "" if score.ci95 is None else f"95 % interval {show_range(score.ci95, 'number')}",
            "" if human is None else f"{show_share(human)} of the published human",
        ]
        text = f"points on {task}"
        found.append(Tile(show_number(score.mean), text, "; ".join(note for note in notes if note)))
    return found


def _size_tile(collection: Collection, run: Run) -> list[Tile]:
    known = dict(run.teacher_parameters)
    for task, parent in zip(run.tasks, run.parents, strict=False):
        expert = collection.run_of(parent)
        if task not in known and expert is not None and expert.parameters is not None:
            known[task] = expert.parameters
    if run.parameters is None:
        return []
    parameters = show_count(run.parameters)
    # One network may teach several tasks, and counts once.
    networks = {
        parent: known.get(task) for task, parent in zip(run.tasks, run.parents, strict=False)
    }
    sizes = [size for size in networks.values() if size is not None]
    if not sizes or len(sizes) < len(networks):
        return [Tile(parameters, "parameters")]
    share = run.parameters / sum(sizes)
    note = f"{parameters} beside {show_count(sum(sizes))} in {counted(len(sizes), 'expert')}"
    return [Tile(show_share(share), f"of {_experts(len(sizes))} parameters", note)]


def _likeness_tile(run: Run) -> list[Tile]:
    alike = [entry.agreement for entry in run.likeness.values()]
    if not alike:
        return []
    mean = sum(alike) / len(alike)
    where = (
        "evaluation games" if all(e.held_out for e in run.likeness.values()) else "training games"
    )
    return [
        Tile(show_share(mean), "of states with its expert's action", f"mean over games, in {where}")
    ]


def _transfer_tile(collection: Collection, contests: Sequence[Contest]) -> list[Tile]:
    """Of the first arm that started from a student, or, if none did, from anything trained."""
    arms = [
        (roles(collection, contest)[arm.name] != "student", contest.task, arm, arm.area_ratio)
        for contest in contests
        for arm in contest.arms
        if not arm.from_random and arm.area_ratio is not None
    ]
    if not arms:
        return []
    _, task, arm, ratio = min(arms, key=lambda found: found[0])
    interval = show_range(arm.area_ratio_ci95, "{:.2f}")
    sure = f"95 % interval {interval}" if interval else "no interval: an illustration"
    note = f"above random play, from {arm.origin}, beside random weights; {sure}"
    return [Tile(f"{ratio:.1f}\u00d7", f"the area under the curve on {task}", note)]


def _experts(number: int) -> str:
    return "its expert's" if number == 1 else "its experts'"


def _interval(estimate: Estimate) -> str:
    interval = estimate.ci95
    return "" if interval is None else f", 95 % interval {show_range(interval, '{:.0%}')}"
