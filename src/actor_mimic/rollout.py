"""Act, step, hand over: environments played in lockstep, with no idea of who learns from it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64, Shaped
from torch import Tensor

from actor_mimic.envs.vector_step import (
    VectorEnv,
    VectorStep,
    catch_up_all,
    close_all,
    observation_shape,
)
from actor_mimic.errors import DataError
from actor_mimic.exploration import epsilon_greedy
from actor_mimic.seeding import generator_state, restore_generator


@dataclass(frozen=True)
class Transition:
    """One step of one task's environments, in the words of the replay.

    ``frames`` are the newest frames that the actor saw, not what came after.
    """

    frames: Shaped[np.ndarray, "envs ..."]
    actions: Int64[np.ndarray, " envs"]
    rewards: Float32[np.ndarray, " envs"]
    terminal: Bool[np.ndarray, " envs"]  # do not bootstrap: game over, or a life lost
    truncated: Bool[np.ndarray, " envs"]  # bootstrap from the final frame
    first: Bool[np.ndarray, " envs"]  # `frames` is the first of its episode
    final_frames: Shaped[np.ndarray, "envs ..."]
    final_observations: Shaped[Tensor, "truncated ..."]  # whole stacks, truncated rows only


@dataclass(frozen=True)
class Episode:
    """A finished game: raw score and length in steps."""

    task: str
    env: int
    score: float
    length: int


class Rollout:
    """Plays the environments of one or several tasks side by side.

    Usage, so that the emulators can run while the caller computes::

        rollout.send(greedy_actions, epsilon)
        ...                                     # label, learn
        for transition in rollout.recv(): ...

    Args:
        envs: one object per task.
        life_loss_is_terminal: a lost life ends the *training* episode; the game goes on, and so
            does the stack of frames.
        rngs: the exploration's generator, one per task.
        device: where the stacks are kept; only their newest frames travel there.
    """

    def __init__(
        self,
        envs: Sequence[VectorEnv],
        *,
        life_loss_is_terminal: bool,
        rngs: Sequence[np.random.Generator],
        device: str = "cpu",
    ) -> None:
        self.envs = list(envs)
        self._life_loss_is_terminal = life_loss_is_terminal
        self._rngs = list(rngs)
        ends = np.cumsum([env.num_envs for env in envs])
        self.slices = [
            slice(int(end) - env.num_envs, int(end)) for end, env in zip(ends, envs, strict=True)
        ]
        self.num_envs = int(ends[-1])
        # Observations of one shape lie in one piece, so that one batch can be made of them all.
        self.same_shape = len({observation_shape(env) for env in envs}) == 1
        groups = [self.envs] if self.same_shape else [[env] for env in envs]
        # [envs, stack, ...] for images, oldest frame first; vectors are not stacked.
        self._pieces = [
            torch.zeros(
                (sum(env.num_envs for env in group), *observation_shape(group[0])),
                dtype=torch.from_numpy(np.empty(0, group[0].frame_dtype)).dtype,
                device=device,
            )
            for group in groups
        ]
        self._stacks = (
            [self._pieces[0][part] for part in self.slices] if self.same_shape else self._pieces
        )
        # The newest frames of the stacks, as the environments gave them.
        self._newest: list[Shaped[np.ndarray, "envs ..."]] = []
        self._first = np.ones(self.num_envs, dtype=bool)
        self._score = np.zeros(self.num_envs, dtype=np.float64)
        self._length = np.zeros(self.num_envs, dtype=np.int64)
        self._actions: list[Int64[np.ndarray, " envs"]] = []
        self._steps: list[VectorStep] = []
        self.finished: list[Episode] = []

    @property
    def observations(self) -> Shaped[Tensor, "envs ..."]:
        """What the actor sees now; shares memory with this object, and `recv` overwrites it.

        Only where all tasks have observations of the same shape.
        """
        assert self.same_shape, "several shapes do not fit into one tensor: see task_observations"
        return self._pieces[0]

    @property
    def task_observations(self) -> list[Shaped[Tensor, "..."]]:
        """The same task by task, in memory that is shared likewise."""
        return self._stacks

    @property
    def scores(self) -> Float64[np.ndarray, " envs"]:
        """Raw score of each environment's game so far; a copy."""
        return self._score.copy()

    def start(self) -> None:
        """Resets every environment; unfinished games are forgotten."""
        self._score[:], self._length[:] = 0.0, 0
        self._newest = [env.reset() for env in self.envs]
        for index, env in enumerate(self.envs):
            _push(self._stacks[index], self._newest[index])
            self._cut(index, np.ones(env.num_envs, dtype=bool))

    def send(self, greedy_actions: Int64[np.ndarray, " envs"], epsilon: float) -> None:
        """Starts one step of every environment.

        Args:
            greedy_actions: for each environment an index into its own task's actions.
            epsilon: probability of a uniformly random action of that task instead.
        """
        self._actions = []
        for env, part, rng in zip(self.envs, self.slices, self._rngs, strict=True):
            actions = epsilon_greedy(
                greedy_actions[part],
                epsilon=epsilon,
                num_actions=len(env.action_names),
                rng=rng,
            )
            env.send(actions)
            self._actions.append(actions)

    def wait(self) -> None:
        """Waits for the step that `send` started, and no more; `recv` need not wait then.

        It touches nothing but the environments, and may run in a thread of its own.
        """
        self._steps = [env.recv() for env in self.envs]

    def recv(self) -> list[Transition]:
        """Waits for the step that `send` started; one transition per task."""
        if not self._steps:
            self.wait()
        steps, self._steps = self._steps, []
        sent, self._actions = self._actions, []
        return [
            self._receive(index, *pair) for index, pair in enumerate(zip(sent, steps, strict=True))
        ]

    def take_finished(self) -> list[Episode]:
        """Games that ended since the last call."""
        finished, self.finished = self.finished, []
        return finished

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that the next step depends on, as tensors and as JSON."""
        assert not self._actions, "a step is under way: recv first"
        tensors = {
            "first": torch.from_numpy(self._first.copy()),
            "score": torch.from_numpy(self._score.copy()),
            "length": torch.from_numpy(self._length.copy()),
        }
        for number, piece in enumerate(self._pieces):
            tensors[_piece_name(number)] = piece.cpu().clone()
        return tensors, {
            "envs": [env.state_dict() for env in self.envs],
            "rngs": [generator_state(rng) for rng in self._rngs],
            "finished": [asdict(episode) for episode in self.finished],
        }

    def load_state_dict(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Goes back to where `state_dict` was taken, but for the environments: see `catch_up`.

        Raises:
            DataError: if it was taken from another number of tasks or environments.
        """
        if len(state["envs"]) != len(self.envs):
            raise DataError(
                f"the checkpoint has {len(state['envs'])} tasks, this run has {len(self.envs)}"
            )
        for env, env_state in zip(self.envs, state["envs"], strict=True):
            env.load_state_dict(env_state)
        self._rngs = [restore_generator(rng) for rng in state["rngs"]]
        for number, piece in enumerate(self._pieces):
            piece.copy_(tensors[_piece_name(number)])
        self._newest = [_newest(stacks).cpu().numpy().copy() for stacks in self._stacks]
        self._first[:] = tensors["first"].numpy()
        self._score[:] = tensors["score"].numpy()
        self._length[:] = tensors["length"].numpy()
        self.finished = [Episode(**episode) for episode in state["finished"]]

    def catch_up(self, stop: Callable[[], int | None] = lambda: None) -> None:
        """Brings the environments to a state that was loaded; see `catch_up_all`."""
        catch_up_all(self.envs, stop)

    def close(self) -> None:
        """Closes the environments, each even if another fails to."""
        close_all(self.envs)

    def _receive(
        self, index: int, actions: Int64[np.ndarray, " envs"], step: VectorStep
    ) -> Transition:
        env, part, stacks = self.envs[index], self.slices[index], self._stacks[index]
        seen, self._newest[index] = self._newest[index], step.frames
        first = self._first[part].copy()
        terminal = step.terminated
        if self._life_loss_is_terminal:
            terminal = terminal | step.life_lost
        self._score[part] += step.raw_reward
        self._length[part] += 1
        for ended in np.flatnonzero(step.started):
            row = part.start + ended
            if not step.failed[ended]:
                self.finished.append(
                    Episode(env.task, int(ended), float(self._score[row]), int(self._length[row]))
                )
            self._score[row], self._length[row] = 0.0, 0
        truncated = step.truncated & ~terminal
        final_observations = stacks[:0]
        if truncated.any():
            final_observations = stacks[np.flatnonzero(truncated)]
            _push(final_observations, step.final_frames[truncated])
        _push(self._stacks[index], step.frames)
        self._cut(index, step.started)
        return Transition(
            frames=seen,
            actions=actions,
            rewards=step.reward,
            terminal=terminal,
            truncated=truncated,
            first=first,
            final_frames=step.final_frames,
            final_observations=final_observations,
        )

    def _cut(self, index: int, started: Bool[np.ndarray, " envs"]) -> None:
        stacks = self._stacks[index]
        if _is_stacked(stacks) and started.any():
            stacks[np.flatnonzero(started), :-1] = 0
        self._first[self.slices[index]] = started


def _piece_name(number: int) -> str:
    return f"stacks.{number}" if number else "stacks"


def _is_stacked(stacks: Shaped[Tensor, "rows ..."]) -> bool:
    return stacks.ndim > 2


def _newest(stacks: Shaped[Tensor, "rows ..."]) -> Shaped[Tensor, "rows ..."]:
    return stacks[:, -1] if _is_stacked(stacks) else stacks


def _push(stacks: Shaped[Tensor, "rows ..."], frames: Shaped[np.ndarray, "rows ..."]) -> None:
    """Every stack loses its oldest frame; in place, so that what shares its memory sees it."""
    if _is_stacked(stacks):
        for position in range(stacks.shape[1] - 1):
            stacks[:, position] = stacks[:, position + 1]
    _newest(stacks).copy_(torch.from_numpy(frames))
