"""What every environment says after a step, whatever it is made of."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Int64, Shaped

from actor_mimic.errors import DataError, Interrupted, UsageError
from actor_mimic.seeding import derive_seed

Frames = Shaped[np.ndarray, "envs ..."]

_MAX_ACTIONS = 256


@dataclass(frozen=True)
class VectorStep:
    """One step of N environments; no later step overwrites the arrays.

    ``frames`` is what the agent sees next. Where an episode ended, the environment has already
    been reset, so it is the first frame of the next episode and the last frame of the old one is
    in ``final_frames``; where none ended the two may be one array::

        step          t        t+1 (over)   t+2
        frames        f[t+1]   g[0]         g[1]
        final_frames  f[t+1]   f[t+2]       g[1]
        started       -        yes          -
    """

    frames: Frames
    final_frames: Frames
    raw_reward: Float32[np.ndarray, " envs"]
    reward: Float32[np.ndarray, " envs"]  # what learners see: clipped to [-1, 1] on Atari
    terminated: Bool[np.ndarray, " envs"]  # true end of the game: no bootstrap
    truncated: Bool[np.ndarray, " envs"]  # cut by a limit: bootstrap from the final frame
    life_lost: Bool[np.ndarray, " envs"]  # a life was lost, and the game is not over
    failed: Bool[np.ndarray, " envs"]  # truncated by an error of the environment: no game to count

    @property
    def started(self) -> Bool[np.ndarray, " envs"]:
        """True where ``frames`` holds the first frame of a new episode."""
        return self.terminated | self.truncated


@runtime_checkable  # the tests check types as the code runs
class VectorEnv(Protocol):
    """N environments of one task that are stepped together and reset themselves by seed.

    An environment's whole state is the seed that it was last given and the actions and resets
    since, so that is what ``state_dict`` holds; ``catch_up`` plays them again.
    """

    task: str
    num_envs: int
    action_names: tuple[str, ...]
    frame_shape: tuple[int, ...]
    frame_dtype: type[np.generic]
    stack_size: int
    frame_skip: int
    steps_per_s: float  # when it is played in real time, as in a film

    def reset(self) -> Frames:
        """Starts every environment's next episode; no later step overwrites its first frames."""
        ...

    def send(self, actions: Int64[np.ndarray, " envs"]) -> None:
        """Starts a step; `recv` must follow before the next `send`."""
        ...

    def recv(self) -> VectorStep:
        """Waits for the step that `send` started."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Episode counters, and actions and resets since the last seed, as lists and integers."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over a recorded state; `catch_up` must bring the environments there."""
        ...

    def catch_up(self) -> Iterator[None]:
        """Plays the actions of a state that was loaded again, if there is one, to its end.

        It yields while the emulators compute, so that those of other tasks can do so as well.
        """
        ...

    def picture(self) -> Shaped[np.ndarray, "height width 3"]:
        """Environment 0 as a person sees it, RGB."""
        ...

    def close(self) -> None:
        """Stops the emulators."""
        ...


@runtime_checkable
class Closable(Protocol):
    """What has to be closed: an environment, or several."""

    def close(self) -> None:
        """Stops the emulators."""
        ...


def close_all(closables: Iterable[Closable]) -> None:
    """Closes each of them, even if another fails to; one that fails is then raised."""
    with ExitStack() as last_first:
        for one in closables:
            last_first.callback(one.close)


@contextmanager
def closed_on_error(closables: Iterable[Closable]) -> Iterator[None]:
    """Closes environments if what is done with them fails; else whoever has them closes them."""
    try:
        yield
    except BaseException as error:  # an interrupt too: emulators have threads of their own
        try:
            close_all(closables)
        except Exception as another:
            error.add_note(f"beside that, an environment did not close: {another!r}")
        raise


def observation_shape(env: VectorEnv) -> tuple[int, ...]:
    """Shape of one observation: stacked images, or the vector alone."""
    if len(env.frame_shape) == 1:
        return env.frame_shape
    return (env.stack_size, *env.frame_shape)


def catch_up_all(envs: Iterable[VectorEnv], stop: Callable[[], int | None] = lambda: None) -> None:
    """Brings environments to the states that they were given, those of all tasks side by side.

    Args:
        envs: of any tasks; those that no state was loaded into stay as they are.
        stop: asked between steps; the number of a signal, or None.

    Raises:
        Interrupted: if a stop was asked for; the environments can only be closed then.
    """
    behind = [env.catch_up() for env in envs]
    while behind:
        signal_number = stop()
        if signal_number is not None:
            raise Interrupted(signal_number)
        behind = [one for one in behind if next(one, behind) is not behind]


class EpisodeLog:
    """Which episode each environment plays, and what it has done since it was last seeded.

    A seed is derived from the run's seed, the task, the environment's index and the number of the
    episode that it starts, so it depends on nothing that happened before. An environment that is
    slow to seed may play several episodes on one seed, and is merely reset between them::

        episode      0             1           2            3
        reset        seeded        plain       plain        seeded
        steps        a a a a a a   a a a a a   a a a a a    a a ...
                     `--- steps_per_seed or a little more ---'

    Args:
        num_envs: environments of the task.
        run_seed: of the run.
        task: the task's name.
        num_actions: how many actions the task has.
        steps_per_seed: an episode that starts after this many steps on one seed gets a new one; 0
            gives every episode its own.

    Raises:
        UsageError: if an action does not fit into the byte that it is stored in.
    """

    def __init__(
        self,
        num_envs: int,
        *,
        run_seed: int,
        task: str,
        num_actions: int,
        steps_per_seed: int = 0,
    ) -> None:
        if num_actions > _MAX_ACTIONS:
            raise UsageError(f"{task}: at most {_MAX_ACTIONS} actions, got {num_actions}")
        self._num_actions = num_actions
        self._run_seed = run_seed
        self._task = task
        self._steps_per_seed = steps_per_seed
        # The episode that the present seed began with; steps since then, and in this episode.
        self._seeded_episode = np.full(num_envs, -1, dtype=np.int64)
        self._length = np.zeros(num_envs, dtype=np.int64)
        self._steps = np.zeros(num_envs, dtype=np.int64)
        self._actions = np.zeros((num_envs, 1024), dtype=np.uint8)
        # Plain resets since the seed, as the number of steps before each.
        self._resets: list[list[int]] = [[] for _ in range(num_envs)]

    @property
    def steps(self) -> Int64[np.ndarray, " envs"]:
        """Steps that each environment has taken in its episode; `append` changes it in place."""
        return self._steps

    def start(
        self, over: Bool[np.ndarray, " envs"]
    ) -> tuple[Bool[np.ndarray, " envs"], Int64[np.ndarray, " seeded"]]:
        """Begins the next episode where ``over``.

        Returns:
            Which of those environments to reset with a seed, and the seeds; the others are to be
            reset without one.
        """
        # Where no step was taken a plain reset would leave no trace to play again.
        seeded = over & ((self._steps == 0) | (self._length >= self._steps_per_seed))
        for env in np.flatnonzero(over & ~seeded):
            self._resets[env].append(int(self._length[env]))
        for env in np.flatnonzero(seeded):
            self._seeded_episode[env] += 1 + len(self._resets[env])
            self._resets[env] = []
        self._length[seeded] = 0
        self._steps[over] = 0
        return seeded, self._seeds(seeded)

    def append(self, actions: Int64[np.ndarray, " envs"]) -> None:
        """Notes one action of every environment.

        Raises:
            ValueError: if the task has no such action. The emulators would not say so: an
                unknown action kills the thread that steps them, and `recv` waits for ever.
        """
        if actions.min() < 0 or actions.max() >= self._num_actions:
            raise ValueError(f"{self._task}: actions are 0..{self._num_actions - 1}, got {actions}")
        if self._length.max() == self._actions.shape[1]:
            self._actions = np.concatenate([self._actions, np.zeros_like(self._actions)], axis=1)
        self._actions[np.arange(len(actions)), self._length] = actions
        self._length += 1
        self._steps += 1

    def play_again(
        self,
        reset: Callable[[Bool[np.ndarray, " envs"], Bool[np.ndarray, " envs"], Any], object],
        send: Callable[[Int64[np.ndarray, " envs"]], object],
        recv: Callable[[], object],
    ) -> Iterator[None]:
        """Brings freshly made environments that step together to where this log ends.

        The shorter histories start later and all end at once; what an environment does before
        its start is thrown away by its reset::

            env 0 (5 actions)   S a a r a a a
            env 1 (3 actions)   . . . . S a a a    S = seeded reset, r = plain reset
            env 2 (0 actions)   . . . . . . . S

        It yields in every step, between ``send`` and ``recv``.
        """
        everywhere = np.ones(len(self._length), dtype=bool)
        reset(everywhere, everywhere, self._seeds(everywhere))
        longest = int(self._length.max())
        start_at = longest - self._length
        plain_at: dict[int, list[int]] = {}
        for env, positions in enumerate(self._resets):
            for position in positions:
                plain_at.setdefault(int(start_at[env]) + position, []).append(env)
        for time in range(longest + 1):
            seeded = (start_at == time) & (time > 0)
            over = seeded.copy()
            over[plain_at.get(time, [])] = True
            if over.any():
                reset(over, seeded, self._seeds(seeded))
            if time < longest:
                position = np.maximum(time - start_at, 0)
                started = time >= start_at
                actions = self._actions[np.arange(len(position)), position].astype(np.int64)
                send(np.where(started, actions, 0))
                yield
                recv()

    def history(self, env: int) -> tuple[int, Int64[np.ndarray, " steps"]]:
        """The seed of one environment's episode, and its actions so far.

        Only where every episode has a seed of its own.
        """
        assert not self._steps_per_seed, "there may be resets in between: see play_again"
        which = np.arange(len(self._length)) == env
        actions = self._actions[env, : self._length[env]].astype(np.int64)
        return int(self._seeds(which)[0]), actions

    def state_dict(self) -> dict[str, Any]:
        """Plain integers and lists."""
        return {
            "episode": self._seeded_episode.tolist(),
            "resets": [list(positions) for positions in self._resets],
            "actions": [
                bytes(row[:length]).hex()
                for row, length in zip(self._actions, self._length, strict=True)
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave.

        Raises:
            DataError: if it was taken from another number of environments, or is damaged.
        """
        try:
            histories = [bytes.fromhex(text) for text in state["actions"]]
            resets = [[int(position) for position in row] for row in state["resets"]]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{self._task}: the actions so far are unreadable: {error}") from error
        unknown = max((max(history, default=0) for history in histories), default=0)
        if unknown >= self._num_actions:
            raise DataError(
                f"{self._task}: the checkpoint has action {unknown}, "
                f"the task has {self._num_actions} actions"
            )
        if not len(histories) == len(resets) == len(self._length):
            raise DataError(
                f"{self._task}: the checkpoint has {len(histories)} environments, "
                f"this run has {len(self._length)}"
            )
        self._seeded_episode = np.array(state["episode"], dtype=np.int64)
        self._length = np.array([len(history) for history in histories], dtype=np.int64)
        self._resets = resets
        last = np.array([max(positions, default=0) for positions in resets], dtype=np.int64)
        if (last > self._length).any():
            raise DataError(f"{self._task}: the checkpoint has a reset after its last action")
        self._steps = self._length - last
        self._actions = np.zeros((len(histories), max(1024, self._length.max())), dtype=np.uint8)
        for row, history in zip(self._actions, histories, strict=True):
            row[: len(history)] = np.frombuffer(history, dtype=np.uint8)

    def _seeds(self, which: Bool[np.ndarray, " envs"]) -> Int64[np.ndarray, " which"]:
        return np.array(
            [
                derive_seed(self._run_seed, self._task, int(env), int(self._seeded_episode[env]))
                for env in np.flatnonzero(which)
            ],
            dtype=np.int64,
        )
