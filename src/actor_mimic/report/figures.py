"""The figures of a report, each an ``svg`` element in the style of `actor_mimic.report.style`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from actor_mimic.protocols import FRAME_SKIP
from actor_mimic.report.aggregate import Likeness, Score
from actor_mimic.report.curves import Curve
from actor_mimic.report.over_games import STATISTICS, OverGames
from actor_mimic.report.style import (
    FONT_UNITS,
    PANEL,
    WIDE,
    colour,
    drawing,
    inline_svg,
    label,
    letter,
)
from actor_mimic.report.tables import ScoreRow, show_share
from actor_mimic.report.transfers import Arm, Contest
from actor_mimic.tasks import is_atari

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.ticker import Locator

ROW = 0.33  # inches for each row of a figure that has one for each game
# For the names of the rows on the left, their figures on the right, and the scale below.
ROW_MARGINS = {"left": 104, "right": 58, "top": 8, "bottom": 42}
FEW_TICKS = 5
STEPS_DOWN, FRAMES_DOWN = 15.0, 28.5  # units below the axes
FAR = 3.0  # times the expert; what scores more is beyond the edge
MOST_MARKERS = 24  # more of them hide the line
BAND = 0.16  # opacity
THIN = 0.55  # likewise, of what is drawn behind
# Lines are told apart by dashes and markers too, and not by colour alone.
DASHES = {"random": (0, (4, 2)), "student": "-", "expert": (0, (6, 1.5, 1, 1.5))}
MARKERS = {"random": "s", "student": "o", "expert": "D", "third": "^", "fourth": "v"}


def score_figure(rows: Sequence[ScoreRow], humans: Mapping[str, float]) -> str:
    """Student beside expert in every game: 0 is random play, 1 the expert.

    Args:
        rows: of a student, with a ratio; the first is drawn at the top.
        humans: raw scores of published human play, by task, where there are any.
    """
    with drawing(WIDE, ROW * len(rows) + 0.75, **ROW_MARGINS) as (figure, axes):
        _rows(axes, [row.task for row in rows])
        axes.axvline(0.0, color=colour("random"), linewidth=1.2, linestyle=(0, (2, 2)))
        axes.axvline(1.0, color=colour("expert"), linewidth=1.4)
        highest = 1.2
        for place_, row in enumerate(rows):
            assert row.ratio is not None
            best = row.ratio if row.ratio_ci95 is None else row.ratio_ci95[1]
            highest = max(highest, min(best, FAR) + 0.05)
            human = _on_expert_scale(humans.get(row.task), row)
            if human is not None and human <= FAR:
                highest = max(highest, human + 0.1)
                axes.plot([human], [place_], "D", markerfacecolor="none", markersize=5.5,
                          markeredgecolor=colour("quiet"), markeredgewidth=1.3)  # fmt: skip
            expert = _interval_on_expert_scale(row)
            if expert is not None:
                axes.barh(place_, expert[1] - expert[0], left=expert[0], height=0.5,
                          color=colour("expert"), alpha=BAND, linewidth=0)  # fmt: skip
            _mark(axes, place_, row.ratio, row.ratio_ci95, "student")
            _say(axes, place_, show_share(row.ratio))
        lowest = min([-0.05, *(row.ratio_ci95[0] for row in rows if row.ratio_ci95)])
        axes.set_xlim(max(lowest, -1.0), highest)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.xaxis.set_major_locator(_few())
        axes.set_xlabel("from random play (0 %) to the expert (100 %)")
        return inline_svg(figure, f"Scores of {_stages(rows)} between random play and its experts")


def curve_panel(
    title: str,
    curve: Curve | None,
    training: Curve | None,
    role: str,
    *,
    task: str,
    random: float | None,
    expert: Score | None = None,
    final: Score | None = None,
    human: float | None = None,
) -> str:
    """One learning curve, with what it may be compared with.

    Args:
        title: over the panel.
        curve: of evaluations; its band runs from the lowest to the highest seed.
        training: of the games that were learnt from; one of the two at least.
        role: in whose colour.
        task: that it learnt.
        random: mean raw score of random play.
        expert: that the student learns from.
        final: score after the last step, from more games.
        human: raw score of published human play; drawn where it is near.
    """
    with drawing(PANEL, 2.35, left=58, right=14, top=26, bottom=40 if is_atari(task) else 28) as (
        figure,
        axes,
    ):
        if expert is not None:
            axes.axhline(expert.mean, color=colour("expert"), linewidth=1.4)
            if expert.ci95 is not None:
                axes.axhspan(*expert.ci95, color=colour("expert"), alpha=BAND, linewidth=0)
        if random is not None:
            axes.axhline(random, color=colour("random"), linewidth=1.2, linestyle=(0, (2, 2)))
        if training is not None:
            axes.plot(training.steps, training.mean, color=colour(role), linewidth=1.0, alpha=THIN,
                      clip_on=False)  # fmt: skip
        if curve is not None:
            _draw(axes, curve, role, linestyle="-")
        end = max(found.steps[-1] for found in (curve, training) if found is not None)
        if final is not None:
            if final.ci95 is not None:
                axes.plot([end, end], final.ci95, color=colour(role), linewidth=2.4, clip_on=False)
            axes.plot([end], [final.mean], "o", color=colour(role), markersize=7, clip_on=False)
        lowest, highest = axes.get_ylim()
        if human is not None and highest < human < highest + 0.5 * (highest - lowest):
            axes.set_ylim(lowest, human + 0.03 * (highest - lowest))
        if human is not None and human <= axes.get_ylim()[1]:
            axes.axhline(human, color=colour("quiet"), linewidth=1.2, linestyle=(0, (6, 2, 1, 2)))
        _step_axes(axes, task)
        letter(axes, 0.0, 1.06, title, transform=axes.transAxes, va="bottom", fontweight="bold")
        return inline_svg(figure, f"Learning curve of {title}, {role}, up to {end:g} steps")


def contest_figure(contest: Contest, roles: Mapping[str, str]) -> str:
    """The learning curves of all arms, and where each reaches the threshold.

    Args:
        contest: with a curve in at least one arm.
        roles: by the arms' names.
    """
    with drawing(
        WIDE, 3.3, left=58, right=14, top=12, bottom=40 if is_atari(contest.task) else 28
    ) as (figure, axes):
        if contest.random is not None:
            axes.axhline(
                contest.random, color=colour("random"), linewidth=1.2, linestyle=(0, (2, 2))
            )
        for arm in contest.arms:
            if arm.curve is not None:
                _draw(axes, arm.curve, roles[arm.name], linestyle=DASHES.get(roles[arm.name], "-"))
        if contest.threshold is not None:
            axes.axhline(contest.threshold, color=colour("quiet"), linewidth=1.0)
            floor = axes.get_ylim()[0]
            for arm in contest.arms:
                reached = arm.threshold_steps
                if reached is not None:
                    axes.vlines(reached, floor, contest.threshold, color=colour(roles[arm.name]),
                                linewidth=1.4, linestyle=(0, (1.5, 1.5)))  # fmt: skip
            axes.set_ylim(bottom=floor)
        _step_axes(axes, contest.task)
        return inline_svg(figure, f"Transfer to {contest.task}: learning curves of all arms")


def area_figure(contest: Contest, roles: Mapping[str, str]) -> str:
    """The area ratios of the arms of a contest, beside 1 for random weights."""
    arms = [arm for arm in contest.arms if arm.area_ratio is not None]
    with drawing(WIDE, ROW * len(arms) + 0.75, **ROW_MARGINS) as (figure, axes):
        _rows(axes, [arm.origin for arm in arms])
        axes.axvline(1.0, color=colour("random"), linewidth=1.2, linestyle=(0, (4, 2)))
        for place_, arm in enumerate(arms):
            assert arm.area_ratio is not None
            _mark(axes, place_, arm.area_ratio, arm.area_ratio_ci95, roles[arm.name])
            _say(axes, place_, f"{arm.area_ratio:.2f}")
        lowest, highest = axes.get_xlim()
        axes.set_xlim(min(lowest, 0.0), max(1.1 * highest, 1.5))
        axes.xaxis.set_major_locator(_few())
        axes.set_xlabel("area, beside that of random weights")
        return inline_svg(figure, f"Transfer to {contest.task}: area ratios of all arms")


def likeness_figures(likeness: Mapping[str, Likeness], stage: str) -> list[str]:
    """Of a student and its teachers, game by game: agreement, divergence, error of the features.

    The last is missing where there is no feature regression.
    """
    agreements = {task: alike.agreement for task, alike in likeness.items()}
    divergences = {task: alike.divergence for task, alike in likeness.items()}
    errors = {
        task: alike.feature_error
        for task, alike in likeness.items()
        if alike.feature_error is not None
    }
    whose = f"of {stage} and its teachers, game by game"
    found = [
        _bars(agreements, "states in which both prefer the same action",
              f"Policy agreement {whose}", most=1.03, shares=True),
        _bars(divergences, "KL(teacher || student), nats", f"Policy divergence {whose}"),
    ]  # fmt: skip
    if errors:
        # A teacher whose features hardly vary would make the others' rows too short to see.
        found.append(
            _bars(errors, "squared error of the features, of their variance",
                  f"Error of the feature regression {whose}", most=1.03, mark=1.0)
        )  # fmt: skip
    return found


def _bars(
    values: Mapping[str, float],
    axis: str,
    title: str,
    *,
    most: float | None = None,
    mark: float | None = None,
    shares: bool = False,
) -> str:
    """A row for each task, from zero to its value, or to the end of the axis if that is less."""
    with drawing(WIDE, ROW * len(values) + 0.75, **ROW_MARGINS) as (figure, axes):
        _rows(axes, list(values))
        if mark is not None:
            axes.axvline(mark, color=colour("line"), linewidth=1.4)
        for place_, value in enumerate(values.values()):
            axes.plot(
                [0, value], [place_, place_], color=colour("student"), linewidth=2.4, alpha=0.5
            )
            _mark(axes, place_, value, None, "student")
            _say(axes, place_, show_share(value) if shares else _show_distance(value))
        axes.set_xlim(0.0, max(1.03 * axes.get_xlim()[1], 1e-3) if most is None else most)
        axes.xaxis.set_major_locator(_few())
        if shares:
            axes.xaxis.set_major_formatter(lambda value, _: show_share(value))
        axes.set_xlabel(axis)
        return inline_svg(figure, title)


def _show_distance(value: float) -> str:
    """Three decimals, as long as there is room for them."""
    return f"{value:.3f}" if abs(value) < 10.0 else f"{value:.3g}"


def over_games_figure(figures: Sequence[OverGames]) -> str:
    """Several policies on one scale: a row for each statistic."""
    names = [*STATISTICS]
    with drawing(WIDE, 0.42 * len(names) + 0.75, **ROW_MARGINS) as (figure, axes):
        _rows(axes, names)
        axes.axvline(1.0, color=colour("line"), linewidth=1.4)
        for number, over in enumerate(figures):
            role = "student" if over.who == "student" else "expert"
            shift = 0.0 if len(figures) == 1 else 0.17 * (2 * number - 1)
            for place_, name in enumerate(names):
                estimate = over.estimates[name]
                _mark(axes, place_ + shift, estimate.value, estimate.ci95, role)
                if over.who == "student":
                    _say(axes, place_, show_share(estimate.value))
        lowest, highest = axes.get_xlim()
        axes.set_xlim(min(lowest, 0.0), max(highest, 1.1))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.xaxis.set_major_locator(_few())
        scale = figures[0].scale
        one = "its own expert" if scale == "expert" else "the published human"
        axes.set_xlabel(f"100 % is {one}")
        return inline_svg(figure, f"{figures[0].stage} over all games, {scale}-normalised")


def arm_roles(arms: Sequence[Arm], kinds: Mapping[str, str]) -> dict[str, str]:
    """A colour for each arm: that of what it started from, as far as there are some.

    Args:
        arms: of one contest.
        kinds: of the stages that they started from, by the arms' names.
    """
    roles: dict[str, str] = {}
    for arm in arms:
        first = {"distill": "student", "expert": "expert"}.get(kinds.get(arm.name, ""), "third")
        wanted = "random" if arm.from_random else first
        free = [role for role in (wanted, "third", "fourth") if role not in roles.values()]
        roles[arm.name] = free[0] if free else wanted
    return roles


def _rows(axes: "Axes", names: Sequence[str]) -> None:
    """A row for each name, the first at the top."""
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), [""] * len(names))
    axes.spines["left"].set_visible(False)
    axes.grid(visible=True, axis="x")
    axes.grid(visible=False, axis="y")
    for number, name in enumerate(names):
        letter(axes, -0.02, number, label(name, max_length=20), va="center", ha="right",
               transform=axes.get_yaxis_transform())  # fmt: skip


def _mark(
    axes: "Axes",
    height: float | int,
    value: float,
    interval: tuple[float, float] | None,
    role: str,
) -> None:
    """A value in its row, on its interval."""
    if interval is not None:
        axes.plot(interval, [height, height], color=colour(role), linewidth=2.4)
    axes.plot([value], [height], MARKERS[role], color=colour(role), markersize=6.5)


def _say(axes: "Axes", height: int, text: str) -> None:
    """A figure at the right end of its row."""
    letter(axes, 1.02, height, text, transform=axes.get_yaxis_transform(), va="center",
           fontweight="bold")  # fmt: skip


def _draw(axes: "Axes", curve: Curve, role: str, *, linestyle: Any) -> None:
    axes.fill_between(
        curve.steps, curve.low, curve.high, color=colour(role), alpha=BAND, linewidth=0
    )
    size = 4.5 if len(curve.steps) <= MOST_MARKERS else 0.0
    axes.plot(curve.steps, curve.mean, MARKERS[role], color=colour(role), clip_on=False,
              linestyle=linestyle, markersize=size)  # fmt: skip


def _step_axes(axes: "Axes", task: str) -> None:
    """Steps below the axes and, of Atari, frames below them."""
    axes.set_xlim(0.0, max(axes.get_xlim()[1], 1.0))
    axes.margins(x=0.0)
    axes.xaxis.set_major_locator(_few())
    axes.yaxis.set_major_locator(_few())
    axes.xaxis.set_major_formatter(lambda value, _: _short(value))
    axes.yaxis.set_major_formatter(
        lambda value, _: _short(value) if abs(value) >= 1e4 else _plain(value)
    )
    _under(axes, "steps", 0.0, STEPS_DOWN, left=True)
    if is_atari(task):
        _under(axes, "frames", 0.0, FRAMES_DOWN, left=True)
        for step in axes.get_xticks():
            if step <= axes.get_xlim()[1]:
                _under(axes, _short(step * FRAME_SKIP), float(step), FRAMES_DOWN)


def _under(axes: "Axes", text: str, step: float, down: float, *, left: bool = False) -> None:
    """Text so many units below the axes."""
    axes.annotate(text, (step, 0), (-12 if left else 0, -down), textcoords="offset points",
                  xycoords=("data", "axes fraction"), ha="right" if left else "center",
                  color=colour("quiet"), fontsize=FONT_UNITS - 0.5)  # fmt: skip


def _plain(value: float) -> str:
    """A tick without decimals that say nothing."""
    return f"{value:,.10g}"


def _short(value: float) -> str:
    """``250k``, ``1.5M``."""
    for size, suffix in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


def _few() -> "Locator":
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(FEW_TICKS, steps=[1, 2, 2.5, 5, 10])


def _on_expert_scale(score: float | None, row: ScoreRow) -> float | None:
    if score is None or row.random is None or row.expert is None:
        return None
    return (score - row.random.mean) / (row.expert.mean - row.random.mean)


def _interval_on_expert_scale(row: ScoreRow) -> tuple[float, float] | None:
    """The expert's interval, around 1."""
    interval = None if row.expert is None else row.expert.ci95
    if interval is None:
        return None
    low, high = (_on_expert_scale(end, row) for end in interval)
    assert low is not None
    assert high is not None
    return low, high


def _stages(rows: Sequence[ScoreRow]) -> str:
    return ", ".join(dict.fromkeys(row.stage for row in rows))
