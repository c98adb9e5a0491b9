"""Replay memory that stores each frame once and builds stacks and n-step returns by index.

One `FrameReplay` is the shard of one task. Every environment owns a ring of slots; a slot is one
decision: the newest frame the actor saw, what it did, what it got, and flags. Three steps of one
environment, cut by a time limit after the third, and the first step of its next episode::

    slot        0      1      2      3      4
    frame       f0     f1     f2     f3     g0
    action      a0     a1     a2     -      b0
    reward      r1     r2     r3     -      ...
    flags       first         trunc  final  first

    stack of 3 that ends at slot 1:  0  f0 f1        (zeros before ``first``)
    3-step return from slot 1:       r2 + gamma r3, then gamma^2 times the value of f1 f2 f3

Slot 3 is there for bootstrapping only and is never drawn. A game over has no such slot (nothing
is bootstrapped), and a life loss is ``terminal`` without a ``first`` behind it, since the actor's
stack went on across it.

Axes: envs = environments of the task, batch = drawn examples, actions and features = the widths
of the labels. An observation is ``[stack, *frame_shape]``, oldest frame first.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float16, Float32, Int64, Shaped
from torch import Tensor

from actor_mimic.errors import DataError
from actor_mimic.replay.slot_rings import Layout, SlotRings, layout_bytes
from actor_mimic.replay.step_index import FINAL, FIRST, TERMINAL, TRUNCATED, Batch, StepIndex

Array = np.ndarray | Tensor

_SPARE_SLOTS = 8  # beyond one stack, so that short n-step windows close inside the ring
_MAX_ACTIONS = 1 << 15  # actions are stored as int16


@dataclass(frozen=True)
class TransitionBatch:
    """n-step transitions; train towards ``returns + discounts * value(next_obs)``.

    ``obs`` and ``next_obs`` have no stack axis where frames are vectors and the stack is 1.
    Where ``discounts`` is zero because the window met a terminal, ``next_obs`` is the last
    observation before it: finite, but without a meaning.
    """

    obs: Shaped[Tensor, "batch ..."]
    actions: Int64[Tensor, " batch"]
    returns: Float32[Tensor, " batch"]
    next_obs: Shaped[Tensor, "batch ..."]
    discounts: Float32[Tensor, " batch"]


@dataclass(frozen=True)
class LabelledBatch:
    """Observations with what the teacher said of them when they arrived."""

    obs: Shaped[Tensor, "batch ..."]
    label_scores: Float32[Tensor, "batch actions"]
    label_features: Float16[Tensor, "batch features"]


class FrameReplay:
    """The newest steps of one task's environments, each frame in memory once.

    What is drawn depends on the contents and on the caller's generator, on nothing else. The
    memory fills as steps arrive, so compare `bytes_needed` with what is free before a long run.
    """

    def __init__(
        self,
        *,
        num_envs: int,
        capacity_steps: int,
        frame_shape: tuple[int, ...],
        frame_dtype: torch.dtype,
        stack_size: int,
        label_scores: int = 0,
        label_features: int = 0,
        device: str = "cpu",
    ) -> None:
        """Allocate an empty memory.

        Args:
            num_envs: environments that write, each into a ring of its own.
            capacity_steps: slots over all environments, rounded down to a multiple of
                ``num_envs``. A truncated episode takes one slot more than it has steps.
            frame_shape: of one frame, e.g. ``(84, 84)`` or ``(4,)``.
            frame_dtype: ``torch.uint8`` for images, ``torch.float32`` for vectors.
            stack_size: frames in an observation.
            label_scores: width of the teacher's scores; 0 allocates none.
            label_features: width of the teacher's features; 0 allocates none.
            device: where frames are kept and observations put together; all else is in main memory.

        Raises:
            ValueError: if an environment gets fewer than ``stack_size + 8`` slots.
        """
        self.num_envs = num_envs
        self.slots_per_env = _slots_per_env(num_envs, capacity_steps, stack_size)
        self.frame_shape = frame_shape
        self.stack_size = stack_size
        self.steps_added = 0
        layout = _layout(frame_shape, frame_dtype, label_scores, label_features)
        devices = {} if device == "cpu" else {"frames": device}
        self._rings = SlotRings(num_envs, self.slots_per_env, layout, devices)
        self._index = StepIndex(self._rings, stack_size)
        self._arrays = self._rings.arrays
        self._flags = self._arrays["flags"]
        self._flags[:] = 0
        self._final_slots_held = 0

    @staticmethod
    def bytes_needed(
        *,
        num_envs: int,
        capacity_steps: int,
        frame_shape: tuple[int, ...],
        frame_dtype: torch.dtype,
        stack_size: int,
        label_scores: int = 0,
        label_features: int = 0,
    ) -> int:
        """Exactly the `nbytes` of a memory made with the same arguments; the same errors too."""
        num_slots = num_envs * _slots_per_env(num_envs, capacity_steps, stack_size)
        layout = _layout(frame_shape, frame_dtype, label_scores, label_features)
        return num_slots * layout_bytes(layout)

    @property
    def nbytes(self) -> int:
        """Bytes allocated for slots."""
        return self._rings.nbytes

    def __len__(self) -> int:
        """Steps held now; final frames do not count."""
        return int(self._rings.held.sum()) - self._final_slots_held

    @property
    def written(self) -> Int64[np.ndarray, " envs"]:
        """Slots ever written by each environment, final frames included (a copy)."""
        return self._rings.written.copy()

    @property
    def oldest(self) -> Int64[np.ndarray, " envs"]:
        """Number, on the scale of `written`, of the oldest slot each environment still holds.

        A segment of `export_since` can be deleted once no ``written_after`` of it is above this.
        """
        return self._rings.oldest

    def add(
        self,
        frames: Shaped[Array, "envs ..."],
        actions: Shaped[Array, " envs"],
        rewards: Shaped[Array, " envs"],
        terminal: Bool[Array, " envs"],
        truncated: Bool[Array, " envs"],
        first: Bool[Array, " envs"],
        *,
        final_frames: Shaped[Array, "envs ..."] | None = None,
        label_scores: Shaped[Array, "envs actions"] | None = None,
        label_features: Shaped[Array, "envs features"] | None = None,
    ) -> None:
        """Store the decision that every environment has just made, and what came of it.

        Args:
            frames: newest frame that the actor saw when it decided.
            actions: what it did, 0 to 32,767.
            rewards: what it got for that.
            terminal: true where nothing may be bootstrapped: a lost life or a game over.
            truncated: true where a limit cut the episode; ignored where ``terminal`` is true.
            first: true where ``frames`` is the first frame after a reset. Must be true in the
                first call and after every end of an episode, but not after a mere life loss.
            final_frames: the frame that followed the last action; needed if any row is
                truncated, and read in those rows only.
            label_scores: the teacher's scores of the observation that ends with ``frames``;
                needed exactly if the memory was made for them.
            label_features: likewise.

        Raises:
            ValueError: if a shape, the type of the frames or an action does not fit, or final
                frames or labels are missing or were not allocated. Nothing is stored then.
        """
        given: dict[str, Array | None] = {"frames": frames, "actions": actions, "rewards": rewards}
        given |= {"label_scores": label_scores, "label_features": label_features}
        values = self._fitting({name: value for name, value in given.items() if value is not None})
        ends, cut, starts = (self._booleans(flag) for flag in (terminal, truncated, first))
        cut_envs = np.flatnonzero(cut & ~ends)
        last_frames = None
        if len(cut_envs):
            if final_frames is None:
                raise ValueError("final_frames is needed where an episode was truncated")
            last_frames = self._fitting_field("frames", final_frames)

        values["flags"] = ends * TERMINAL | (cut & ~ends) * TRUNCATED | starts * FIRST
        self._push(np.arange(self.num_envs), values)
        self.steps_added += self.num_envs
        if last_frames is not None:
            self._push(cut_envs, {"frames": last_frames[cut_envs], "flags": FINAL})
            self._final_slots_held += len(cut_envs)

    def sample_transitions(
        self, batch_size: int, *, n_step: int, gamma: float, rng: np.random.Generator
    ) -> TransitionBatch:
        """Draw n-step transitions uniformly, with replacement.

        A step can be drawn when its observation is complete (the oldest ``stack_size - 1`` slots
        of a full ring have lost frames, unless a reset cuts their stack) and its window is
        closed: ``n_step`` newer slots exist, or an end is inside, however new it is.

        Args:
            batch_size: transitions to draw.
            n_step: rewards to sum at most; the sum stops at a terminal or a truncation.
            gamma: discount per step, 0 to 1.
            rng: the only source of randomness.

        Raises:
            ValueError: if an argument is out of its range or nothing can be drawn yet.
        """
        if not 0.0 <= gamma <= 1.0:
            raise ValueError(f"gamma must lie in [0, 1], got {gamma}")
        if not 1 <= n_step <= self.slots_per_env - self.stack_size:
            largest = self.slots_per_env - self.stack_size
            raise ValueError(f"n_step must lie in 1..{largest}, got {n_step}")
        env, number = self._index.draw(batch_size, n_step, rng)
        length, terminal = self._index.window(env, number, n_step)

        window = np.arange(n_step)
        inside = window < length[:, None]
        rows = self._rings.rows(env[:, None], number[:, None] + window)
        # Behind its end a window may reach into memory that was never written.
        rewards = np.where(inside, self._arrays["rewards"][rows], 0.0)
        returns = (rewards * np.float64(gamma) ** window).sum(axis=1)
        discounts = np.where(terminal, 0.0, np.float64(gamma) ** length)
        next_number = number + length - terminal
        return TransitionBatch(
            obs=self._observations(env, number),
            actions=self._actions(env, number),
            returns=torch.from_numpy(returns.astype(np.float32)),
            next_obs=self._observations(env, next_number),
            discounts=torch.from_numpy(discounts.astype(np.float32)),
        )

    def sample_labelled(self, batch_size: int, *, rng: np.random.Generator) -> LabelledBatch:
        """Draw labelled observations uniformly, with replacement, the newest steps included.

        Args:
            batch_size: observations to draw.
            rng: the only source of randomness.

        Returns:
            The batch; a label that was not allocated has width 0.

        Raises:
            ValueError: if the memory was made without labels, or nothing can be drawn yet.
        """
        tensors = self._rings.tensors
        if not tensors.keys() & {"label_scores", "label_features"}:
            raise ValueError("this replay was made without labels")
        env, number = self._index.draw(batch_size, 0, rng)
        rows = torch.from_numpy(self._rings.rows(env, number))

        def labels(name: str, dtype: torch.dtype) -> Tensor:
            absent = torch.empty((batch_size, 0), dtype=dtype)
            return torch.index_select(tensors[name], 0, rows) if name in tensors else absent

        return LabelledBatch(
            obs=self._observations(env, number),
            label_scores=labels("label_scores", torch.float32),
            label_features=labels("label_features", torch.float16),
        )

    def export_since(self, written_before: Int64[np.ndarray, " envs"]) -> dict[str, Tensor]:
        """Copy the slots written since an earlier moment: one segment of a checkpoint.

        Args:
            written_before: `written` at that moment; zeros for everything that is held.

        Returns:
            The fields of those slots that are still held, environment by environment, with
            ``written_before``, ``written_after`` and ``steps_added``. As large as its slots.

        Raises:
            ValueError: if ``written_before`` cannot be an earlier value of `written`.
        """
        segment = self._rings.export_since(written_before)
        return segment | {"steps_added": torch.tensor(self.steps_added)}

    def restore(self, segments: Iterable[Mapping[str, Tensor]]) -> None:
        """Fill this empty memory from consecutive segments of `export_since`, oldest first.

        Segments that are overwritten completely may be missing at the front. Afterwards this
        memory draws what the original draws, given generators in the same state.

        Raises:
            ValueError: if this memory is not empty.
            DataError: if a segment does not fit this memory or its predecessor, or slots that
                the rings should hold are in no segment. This memory is of no use then.
        """
        if self.steps_added:
            raise ValueError("only an empty replay can be restored")
        for segment in segments:
            fields = dict(segment)
            if "steps_added" not in fields:
                raise DataError("replay segment: expected steps_added, which is missing")
            self.steps_added = int(fields.pop("steps_added"))
            self._rings.append_segment(fields)
        self._rings.check_complete()
        self._final_slots_held = int(np.count_nonzero(self._flags & FINAL))

    def _fitting(self, values: Mapping[str, Array]) -> dict[str, np.ndarray]:
        """All fields but the flags, checked."""
        expected = self._rings.tensors.keys() - {"flags"}
        if values.keys() != expected:
            raise ValueError(f"this replay stores {sorted(expected)}, got {sorted(values)}")
        return {name: self._fitting_field(name, value) for name, value in values.items()}

    def _fitting_field(self, name: str, value: Array) -> np.ndarray:
        """A field's value for every environment, as an array that its row can take."""
        field = self._rings.tensors[name]
        expected = (self.num_envs, *field.shape[1:])
        if tuple(value.shape) != expected:
            raise ValueError(f"{name} must be {expected}, got {tuple(value.shape)}")
        if isinstance(value, Tensor):
            # Features may come in bfloat16, which NumPy does not have.
            is_label = name.startswith("label")
            value = value.detach().to(field.dtype if is_label else value.dtype).numpy()
        frame_dtype = str(field.dtype).removeprefix("torch.")
        if name == "frames" and value.dtype.name != frame_dtype:
            raise ValueError(f"frames must be {frame_dtype}, got {value.dtype}")
        if name == "actions" and not 0 <= value.min() <= value.max() < _MAX_ACTIONS:
            raise ValueError(f"actions must lie in 0..{_MAX_ACTIONS - 1}, got {value.tolist()}")
        return value

    def _booleans(self, flag: Bool[Array, " envs"]) -> Bool[np.ndarray, " envs"]:
        array = np.asarray(flag)
        if array.shape != (self.num_envs,) or array.dtype != np.bool_:
            raise ValueError(
                f"terminal, truncated and first must be booleans for {self.num_envs} "
                f"environments, got {array.dtype} {array.shape}"
            )
        return array

    def _push(
        self, envs: Int64[np.ndarray, " rows"], values: Mapping[str, np.ndarray | np.uint8]
    ) -> None:
        """Write one slot of each given environment and forget the final slots it overwrites."""
        overwritten = self._flags[self._rings.rows(envs, self._rings.written[envs])]
        self._final_slots_held -= int(np.count_nonzero(overwritten & FINAL))
        self._rings.push(envs, values)

    def _observations(self, env: Batch, number: Batch) -> Shaped[Tensor, "batch ..."]:
        """The stacks that end at the given slots, zero before a reset."""
        rows, before_reset = self._index.stack(env, number)
        field = self._rings.tensors["frames"]
        # For 128 Atari frames index_select took 9 us, NumPy's take 17, tensor[rows] 170.
        flat_rows = torch.from_numpy(rows.reshape(-1)).to(field.device)
        frames = torch.index_select(field, 0, flat_rows)
        if len(blank := np.flatnonzero(before_reset)):
            frames.index_fill_(0, torch.from_numpy(blank).to(field.device), 0)
        if self.stack_size == 1 and len(self.frame_shape) == 1:
            return frames
        return frames.view(len(env), self.stack_size, *self.frame_shape)

    def _actions(self, env: Batch, number: Batch) -> Int64[Tensor, " batch"]:
        actions = self._arrays["actions"][self._rings.rows(env, number)]
        return torch.from_numpy(actions.astype(np.int64))


def _slots_per_env(num_envs: int, capacity_steps: int, stack_size: int) -> int:
    if num_envs < 1 or stack_size < 1:
        raise ValueError(
            f"num_envs and stack_size must be positive, got {num_envs} and {stack_size}"
        )
    needed = num_envs * (stack_size + _SPARE_SLOTS)
    if capacity_steps < needed:
        raise ValueError(
            f"capacity_steps must be at least {needed} for {num_envs} environments and stacks "
            f"of {stack_size}, got {capacity_steps}"
        )
    return capacity_steps // num_envs


def _layout(
    frame_shape: tuple[int, ...], frame_dtype: torch.dtype, label_scores: int, label_features: int
) -> Layout:
    layout: Layout = {
        "frames": (frame_shape, frame_dtype),
        "actions": ((), torch.int16),
        "rewards": ((), torch.float32),
        "flags": ((), torch.uint8),
    }
    if label_scores:
        layout["label_scores"] = ((label_scores,), torch.float32)
    if label_features:
        layout["label_features"] = ((label_features,), torch.float16)
    return layout
