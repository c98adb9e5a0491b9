"""The session, driven by a state whose only content is a counter."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from actor_mimic.config import ScheduleConfig
from actor_mimic.errors import DataError, DivergenceError, Interrupted
from actor_mimic.networks.q_network import QNetwork
from actor_mimic.networks.torsos import TorsoSpec
from actor_mimic.stages.session import Evaluation, Session
from actor_mimic.stages.training import RecentEpisodes, Snapshot, train
from actor_mimic.storage.checkpoint import find_checkpoints, read_best, resolve_checkpoint
from actor_mimic.storage.records import Record, read_records
from actor_mimic.storage.run_dir import RunDir, open_run

SIGTERM = 15


class Counter:
    """Ten steps an advance; its one metric is the number of the advance."""

    total_steps = 100
    replay_bytes = 0

    def __init__(self) -> None:
        spec = TorsoSpec("mlp", (1,), 0.01)
        self.network = QNetwork(spec, 1, generator=torch.Generator())
        self.steps = self.updates = 0
        self.recent = RecentEpisodes([])
        self.started = self.caught_up = False
        self.diverge_at = -1

    @property
    def acting(self) -> QNetwork:
        return self.network

    def start(self, _stop: Callable[[], int | None] = lambda: None) -> None:
        self.started = True

    def advance(self) -> dict[str, float]:
        if self.steps == self.diverge_at:
            raise DivergenceError("not finite")
        self.steps += 10
        self.updates += 1
        return {"metric": float(self.updates)}

    def snapshot(self) -> Snapshot:
        return Snapshot({"model": self.network.state_dict()}, {"steps": self.steps})

    def restore(self, tensors, state, replays) -> None:
        assert not replays
        self.network.load_state_dict(tensors["model"])
        self.steps = state["steps"]
        self.updates = self.steps // 10

    def catch_up(self, _stop: Callable[[], int | None] = lambda: None) -> None:
        assert self.steps, "restore comes first"
        self.caught_up = True

    def close(self) -> None: ...


class Script:
    """What evaluations give and when a signal comes."""

    def __init__(self, merits: dict[int, float] | None = None, stop_at: int = -1) -> None:
        self.state = Counter()
        self.merits = merits or {}
        self.stop_at = stop_at
        self.stop_in_evaluation_at = -1
        self.evaluated: list[int] = []
        self.went_on_from: list[str] = []

    def notice(self, text: str) -> None:
        assert text.startswith("going on from step "), text
        self.went_on_from.append(text.split()[4])

    def evaluate(self) -> Evaluation:
        if self.state.steps == self.stop_in_evaluation_at:
            raise Interrupted(SIGTERM)
        self.evaluated.append(self.state.steps)
        return Evaluation({}, self.merits.get(self.state.steps, 0.0))

    def stop(self) -> int | None:
        resumed = bool(self.went_on_from) and self.state.steps < Counter.total_steps
        assert self.state.caught_up or not resumed, "asked before games were played again"
        return SIGTERM if self.state.steps == self.stop_at else None

    def run(self, run: RunDir, **schedule: int) -> Iterator[Record]:
        periods = {"record_every_steps": 20, "eval_every_steps": 0, "checkpoint_every_steps": 40}
        session = Session(
            self.state,
            run,
            schedule=ScheduleConfig(**(periods | schedule)),
            manifest={
                "kind": "expert",
                "tasks": {"pong": ["NOOP"]},
                "network": {},
                "config": {},
                "parents": [],
            },
            evaluate=self.evaluate,
            stop=self.stop,
            notice=self.notice,
        )
        return session.run()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDir]:
    with open_run(tmp_path / "run", stage="test", config={}) as opened:
        yield opened


def steps_of(run: RunDir, kind: str) -> list[int]:
    return [r.step for r in read_records(run.path / "records.jsonl") if r.kind == kind]


def saved_steps(run: RunDir) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in find_checkpoints(run.checkpoints)]


def test_records_hold_means_since_the_last_one():
    records = list(train(Counter(), lambda _, now: now % 40 == 0))

    assert [r.step for r in records] == [40, 80, 100]
    assert [r.values["metric"] for r in records] == [2.5, 6.5, 9.5]  # means of 1-4, 5-8, 9-10


def test_rates_are_of_this_session_and_of_learning_alone(monkeypatch):
    """Half of the work was done before, and a pause between two records is nobody's rate."""
    now = [1_000.0]
    monkeypatch.setattr("actor_mimic.stages.training.time.monotonic", lambda: now[0])

    class Slow(Counter):
        def advance(self) -> dict[str, float]:
            now[0] += 4.0
            return super().advance()

    state = Slow()
    state.steps, state.updates = 50, 5
    rates = []
    for record in train(state, lambda _, now: now % 20 == 0):
        rates.append((record.values["steps_per_s"], record.values["updates_per_s"]))
        now[0] += 100.0

    assert rates == [(2.5, 0.25)] * 3


def test_periods_need_not_fit_each_other(run):
    list(Script().run(run, record_every_steps=30, eval_every_steps=50, checkpoint_every_steps=40))

    assert steps_of(run, "train") == [30, 40, 50, 60, 80, 90, 100]
    assert steps_of(run, "evaluation") == [0, 50, 100]
    assert steps_of(run, "checkpoint") == [0, 40, 50, 80, 100]


def test_no_evaluation_unless_asked(run):
    script = Script()
    list(script.run(run))

    assert script.state.started
    assert script.evaluated == []
    assert saved_steps(run) == [80, 100]  # the newest two
    assert read_best(run.path) is None


def test_the_best_checkpoint_is_kept(run):
    list(Script(merits={20: 7.0, 60: 3.0}).run(run, eval_every_steps=20))

    best = read_best(run.path)
    assert best is not None
    assert (best.step, best.score) == (20, 7.0)
    assert saved_steps(run) == [20, 80, 100]
    assert resolve_checkpoint(run.path, which="best").step == 20


def test_a_stop_waits_for_one_advance_only(run):
    script = Script(stop_at=50)
    with pytest.raises(Interrupted) as stopped:
        list(script.run(run, record_every_steps=1_000, checkpoint_every_steps=1_000))

    assert stopped.value.exit_code == 143
    assert script.state.steps == 50
    assert saved_steps(run) == [50]

    again = Script()
    list(again.run(run, record_every_steps=1_000, checkpoint_every_steps=1_000))
    assert not again.state.started
    assert (script.state.caught_up, again.state.caught_up) == (False, True)
    assert (script.went_on_from, again.went_on_from) == ([], ["50:"])
    assert steps_of(run, "train") == [50, 100]


def test_an_evaluation_that_was_stopped_is_made_once_on_resume(run):
    script = Script()
    script.stop_in_evaluation_at = 40
    with pytest.raises(Interrupted):
        list(script.run(run, eval_every_steps=40))
    assert saved_steps(run)[-1] == 40
    assert steps_of(run, "evaluation") == [0]

    # The evaluation is made, then killed before anything else: it must not be made again.
    second = Script(merits={40: 5.0})
    records = second.run(run, eval_every_steps=40)
    for record in records:
        if record.kind == "checkpoint":
            break
    records.close()
    third = Script(merits={40: 6.0})
    list(third.run(run, eval_every_steps=40))

    assert second.evaluated == [40]
    assert third.evaluated == [80, 100]
    assert steps_of(run, "evaluation") == [0, 40, 80, 100]
    best = read_best(run.path)
    assert best is not None
    assert (best.step, best.score) == (40, 5.0), "best.json was not mended after the kill"


def test_at_the_end_no_game_is_played_again(run):
    """What is left is an evaluation of the network, which has games of its own."""
    script = Script()
    script.stop_in_evaluation_at = 100
    with pytest.raises(Interrupted):
        list(script.run(run, eval_every_steps=50))

    again = Script()
    list(again.run(run, eval_every_steps=50))
    assert again.evaluated == [100]
    assert again.went_on_from == ["100"]
    assert not again.state.caught_up


@pytest.mark.parametrize("values", [{}, {"merit": "high"}, {"merit": float("nan")}])
def test_an_evaluation_without_a_merit_is_damage(run, values):
    list(Script().run(run))
    run.records.write(Record("evaluation", 100, 10, values, 0.0))

    with pytest.raises(DataError, match=r"records\.jsonl: expected the merit .* at step 100"):
        list(Script().run(run))


def test_divergence_leaves_the_last_checkpoint(run):
    script = Script()
    script.state.diverge_at = 60
    with pytest.raises(DivergenceError) as diverged:
        list(script.run(run))

    assert str(diverged.value) == (
        "pong, after 60 steps and 6 updates: not finite The last checkpoint, of step 40, is "
        "intact. The same command goes on from it, and where resume is exact comes here again; "
        "other settings need another run directory, and an expert's weights can be taken there "
        "(transfer --from)."
    )
    assert saved_steps(run) == [40]
    list(Script().run(run))
    assert saved_steps(run) == [80, 100]


def test_divergence_before_the_first_checkpoint(run):
    script = Script()
    script.state.diverge_at = 0
    with pytest.raises(DivergenceError, match=r"^pong, after 0 steps .* no checkpoint yet\.$"):
        list(script.run(run))
    assert saved_steps(run) == []


def test_weights_that_are_not_finite_are_not_saved(run):
    """They may come from the last update before a checkpoint, whose loss nobody has seen."""
    script = Script()

    def play() -> None:
        for record in script.run(run):
            if record.step == 60:
                script.state.network.head.bias.data.fill_(float("nan"))

    with pytest.raises(DivergenceError, match=r"after 80 steps .* head\.bias .* of step 40"):
        play()
    assert saved_steps(run) == [40]


def test_a_run_that_was_killed_at_its_very_end_needs_nothing_more(run):
    list(Script().run(run))
    again = Script()
    records = list(again.run(run))

    assert records == []
    assert again.state.steps == 100
