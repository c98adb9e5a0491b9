"""Rows B1, B3 and B6: values, rewards and environments that go wrong while a network learns."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch.optim.optimizer import register_optimizer_step_post_hook

from actor_mimic.envs import gymnasium as adapter
from actor_mimic.learners import gradient_step
from benchmarks.faults.row import Row, Rows, of_trials, trials
from benchmarks.faults.runs import (
    CARTPOLE,
    SMALL_DQN,
    SMALL_PQN,
    Work,
    is_done,
    lasting,
    must,
    nothing,
    valid_steps,
    verb,
)

SHORT = lasting(2048, every=10**6)
LONG = lasting(20_480, every=10**6)


class Wayward(gymnasium.Env[Any, Any]):
    """Ten steps an episode, one reward a step; how it goes wrong is in its class.

    Attributes:
        fails: in ``reset`` or ``step``, with this probability at each call.
        after: how many steps of the process go well before it returns what it should not.
        returns: what it returns then, from what it should.
    """

    fails: ClassVar[dict[str, float]] = {}
    after: ClassVar[int] = 0
    returns: ClassVar[Callable[[tuple[Any, ...]], Any]] = tuple
    steps: ClassVar[int] = 0

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space = Box(-1e9, 1e9, (3,))
        self.action_space = Discrete(2)
        self._rng = np.random.default_rng()
        self._time = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Begins at 0."""
        super().reset(seed=seed, options=options)
        self._perhaps_fail("reset")
        self._time = 0
        return np.zeros(3, np.float32), {}

    def step(self, action: Any) -> Any:
        """Counts, and goes wrong."""
        self._perhaps_fail("step")
        self._time += 1
        Wayward.steps += 1
        obs = np.array([self._time, float(action), 1.0], np.float32)
        right = (obs, 1.0, self._time == 10, False, {})
        return Wayward.returns(right) if Wayward.steps > Wayward.after else right

    def _perhaps_fail(self, method: str) -> None:
        if self._rng.random() < Wayward.fails.get(method, 0.0):
            raise RuntimeError(f"the simulator is gone in {method}")


TASK = "gym:Wayward-v0"


def _register() -> None:
    if "Wayward-v0" not in gymnasium.registry:
        gymnasium.register("Wayward-v0", Wayward)


def _wayward(
    *,
    fails: dict[str, float] | None = None,
    after: int = 0,
    returns: Callable[[tuple[Any, ...]], Any] = tuple,
    then: Callable[[], object] = nothing,
) -> Callable[[], None]:
    """What a fork does before its work."""

    def prepare() -> None:
        Wayward.fails, Wayward.after, Wayward.returns = fails or {}, after, staticmethod(returns)
        then()

    return prepare


def b1_not_finite(scratch: Path) -> Row:
    """A reward that no square can hold, at a random step; a teacher whose scores are infinite."""
    _register()
    rng = np.random.default_rng(0)
    number = trials(10)
    failures = 0
    learners: dict[str, Sequence[str]] = {"pqn": SMALL_PQN, "dqn": SMALL_DQN}
    for name, learner in learners.items():
        for trial in range(number):
            after = int(rng.integers(400, 1500))
            command = ("train-expert", TASK, *SHORT, *learner)
            failures += not _stops_before_the_step(scratch / f"{name}-{trial}", command, after)
    teacher = must(("train-expert", CARTPOLE, *SHORT, *SMALL_PQN), scratch / "teacher")
    students = trials(10)
    for trial in range(students):
        command = (
            *("distill", f"{CARTPOLE}={teacher}", *lasting(2048, every=10**6, games=0)),
            *("--set=envs_per_task=4", "--set=learning_starts_steps=200"),
        )
        run = scratch / f"student-{trial}"
        failures += not _stops_before_the_step(run, command, int(rng.integers(2, 40)))
    total = len(learners) * number + students
    command = ("train-expert", TASK, *SHORT, *SMALL_DQN)
    caught = not _stops_before_the_step(scratch / "mutant", command, 700, blind=True)
    return Row(
        "B1",
        "a loss that is not finite, at a random step of pqn, dqn and distill",
        total,
        failures,
        f"{of_trials(failures, total, 'changed a parameter or left with another code')}; "
        f"a step that does not look: {'caught' if caught else 'not caught'}",
        "parameters as after the step before, exit 70; the mutant fails",
        failures == 0 and caught,
    )


def _stops_before_the_step(
    run: Path, command: Sequence[str], after: int, *, blind: bool = False
) -> bool:
    """Whether no parameter changed after the last step that was finite, and the code is 70."""
    witness = run.parent / f"{run.name}.pt-hash"

    def prepare() -> None:
        Wayward.after, Wayward.fails = after, {}
        Wayward.returns = staticmethod(lambda right: (right[0], 3e38, *right[2:]))
        _watch(witness, spoil_after=after if command[0] == "distill" else None)
        if blind:
            gradient_step.torch.isfinite = lambda _: torch.ones(())  # type: ignore[assignment]

    with verb(command, run, prepare=prepare) as work:
        code, said = work.wait(), work.said()
    task = CARTPOLE if command[0] == "distill" else TASK
    return code == 70 and f"error: {task}, after " in said and witness.read_text() == "unchanged"


def _watch(witness: Path, spoil_after: int | None) -> None:
    """Writes down whether the parameters are those that the last step made, once a step is refused.

    Args:
        witness: where to.
        spoil_after: make the losses infinite after so many optimiser steps; None leaves them.
    """
    state: dict[str, Any] = {"steps": 0}
    original = gradient_step.DivergenceError
    witness.write_text("no step was refused")

    def after_step(optimizer: torch.optim.Optimizer, *_: object) -> None:
        state["steps"] += 1
        state["parameters"] = [p.detach().clone() for p in _parameters(optimizer)]
        state["optimizer"] = optimizer
        if spoil_after is not None and state["steps"] >= spoil_after:
            _spoil_losses()

    def refused(message: str) -> Exception:
        now = _parameters(state["optimizer"])
        same = all(torch.equal(a, b) for a, b in zip(now, state["parameters"], strict=True))
        witness.write_text("unchanged" if same else "changed")
        return original(message)

    register_optimizer_step_post_hook(after_step)
    gradient_step.DivergenceError = refused  # type: ignore[assignment,misc]


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _spoil_losses() -> None:
    from actor_mimic.learners import mimic

    right = mimic.gradient_step

    def spoilt(losses: Any, *arguments: Any, **options: Any) -> Any:
        def infinite(rows: slice) -> Any:
            values, columns = losses(rows)
            return values * float("inf"), columns

        return right(infinite, *arguments, **options)

    mimic.gradient_step = spoilt


def b3_failing_environments(scratch: Path) -> Row:
    """Rarely and always, in step and in reset."""
    _register()
    rarely, slowest = trials(10), 0.0
    failures = restarts = 0
    command = ("train-expert", TASK, *LONG, *SMALL_PQN)
    for trial in range(rarely):
        run = scratch / f"rarely-{trial}"
        with verb(command, run, prepare=_wayward(fails={"step": 0.001})) as work:
            failures += work.wait() != 0 or not is_done(run)
            restarts += work.said().count("made again")
    always = {"step": {"step": 1.0}, "reset": {"reset": 1.0}, "both": {"reset": 0.6, "step": 0.6}}
    for name, fails in always.items():
        started = time.monotonic()
        run = scratch / f"always-{name}"
        with verb(command, run, prepare=_wayward(fails=fails)) as work:
            named = f"error: {TASK}: given up" in work.said() if work.wait() == 69 else False
            failures += not named
        slowest = max(slowest, time.monotonic() - started)
    patience = _wayward(fails={"step": 0.001}, then=_give_up_at_once)
    with verb(command, scratch / "mutant", prepare=patience) as work:
        caught = work.wait() != 0
    total = rarely + len(always)
    return Row(
        "B3",
        f"environments that raise: {rarely} runs of 20,480 steps with 1 step in 1,000, and always",
        total,
        failures,
        f"{of_trials(failures, total, 'ended otherwise')}, {restarts} restarts, given up after at "
        f"most {slowest:.1f} s; without restarts a run ends: {'yes' if caught else 'no'}",
        "rarely: runs finish; always: exit 69 naming the task in 30 s; the mutant fails",
        failures == 0 and restarts > 0 and slowest < 30.0 and caught,
    )


def _give_up_at_once() -> None:
    adapter.FREE_RESTARTS = 0
    adapter.STEPS_PER_RESTART = 10**9


BAD: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "shape": lambda right: (right[0][:1], *right[1:]),
    "dtype": lambda right: (np.array(["a", "b", "c"]), *right[1:]),
    "nan-observation": lambda right: (right[0] * np.nan, *right[1:]),
    "infinite-reward": lambda right: (right[0], float("inf"), *right[2:]),
    "nan-reward": lambda right: (right[0], float("nan"), *right[2:]),
    "reward-shape": lambda right: (right[0], np.ones(3), *right[2:]),
    "no-flag": lambda right: (*right[:2], None, *right[3:]),
    "four-values": lambda right: (right[0], right[1], right[2], {}),
    "no-info": lambda right: (*right[:4], None),
    "nothing": lambda _: None,
}


def b6_malformed_environments(scratch: Path) -> Row:
    """Each returns one wrong thing from a step within the first hundred on."""
    _register()
    rng = np.random.default_rng(0)
    command = ("train-expert", TASK, *SHORT, *SMALL_PQN)
    wrong = []
    for name, returns in BAD.items():
        after = int(rng.integers(100))
        run = scratch / name
        with verb(command, run, prepare=_wayward(after=after, returns=returns)) as work:
            code, said = work.wait(), work.said()
        if code != 65 or f"error: {TASK}: the environment" not in said or valid_steps(run):
            wrong.append(name)
    mutants = ("nan-observation", "infinite-reward", "shape")
    caught = 0
    for name in mutants:
        prepare = _wayward(returns=BAD[name], then=_look_at_nothing)
        with verb(command, scratch / f"mutant-{name}", prepare=prepare) as work:
            caught += work.wait() != 65
    aliased = _aliasing_is_harmless(scratch)
    return Row(
        "B6",
        f"environments that return a wrong {', '.join(BAD)}; one that reuses its buffer",
        len(BAD) + 1,
        len(wrong) + (not aliased),
        f"{of_trials(len(wrong), len(BAD), ' '.join(['accepted', *wrong]))}; a "
        f"reused buffer is {'harmless' if aliased else 'NOT harmless'}; without the checks: "
        f"{caught} of {len(mutants)}",
        "all refused in 100 steps, exit 65, task named; the mutant fails",
        not wrong and aliased and caught == len(mutants),
    )


def _look_at_nothing() -> None:
    adapter.GymnasiumEnvs._refuse_unless = lambda *_: None  # type: ignore[method-assign]
    adapter.GymnasiumEnvs._finite_float32 = lambda _, values: values.astype(np.float32)  # type: ignore[method-assign]


def _aliasing_is_harmless(scratch: Path) -> bool:
    """The same buffer at every step: frames that were handed out stay what they were."""
    buffer = np.zeros(3, np.float32)

    def reuse(right: tuple[Any, ...]) -> Any:
        buffer[:] = right[0]
        return (buffer, *right[1:])

    def action() -> int:
        _wayward(returns=reuse)()
        envs = adapter.GymnasiumEnvs(TASK, num_envs=2, run_seed=0)
        envs.reset()
        handed, copies = [], []
        for _ in range(25):
            envs.send(np.zeros(2, np.int64))
            step = envs.recv()
            handed += [step.frames, step.final_frames]
            copies += [step.frames.copy(), step.final_frames.copy()]
        return sum(not np.array_equal(a, b) for a, b in zip(handed, copies, strict=True))

    with Work(action, scratch / "aliased.log") as work:
        return work.wait() == 0


ROWS: Rows = {
    "B1": b1_not_finite,
    "B3": b3_failing_environments,
    "B6": b6_malformed_environments,
}
