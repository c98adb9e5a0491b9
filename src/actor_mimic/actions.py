"""The student's action alphabet, and the map from each task's actions into it.

A task numbers its own actions 0..n-1; ALE gives every ROM its own minimal set, so index 2 is RIGHT
in Pong and UP in Boxing. The student has one output per *meaning*::

    alphabet   NOOP FIRE UP RIGHT LEFT DOWN UPRIGHT ...          (18 on Atari)
    pong        0    1       2     3                              6 actions, 12 illegal slots
    boxing      0    1   2   3     4    5      6    ...           18 actions

Maps are built by name, never by position: the full set of Skiing, for one, has 9 actions.

Experts and transfer networks have the task's own outputs; only students use the alphabet.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

ATARI_ALPHABET: tuple[str, ...] = (
    "NOOP",
    "FIRE",
    "UP",
    "RIGHT",
    "LEFT",
    "DOWN",
    "UPRIGHT",
    "UPLEFT",
    "DOWNRIGHT",
    "DOWNLEFT",
    "UPFIRE",
    "RIGHTFIRE",
    "LEFTFIRE",
    "DOWNFIRE",
    "UPRIGHTFIRE",
    "UPLEFTFIRE",
    "DOWNRIGHTFIRE",
    "DOWNLEFTFIRE",
)  # in the order of ALE's own enum; a test compares the two


@dataclass(frozen=True)
class ActionMap:
    """Where each action of one task stands in the alphabet.

    Attributes:
        slots: alphabet slot of task action 0, 1, ...; all different.
        alphabet_size: number of slots of the alphabet.
    """

    slots: tuple[int, ...]
    alphabet_size: int

    def legal(self) -> Bool[Tensor, " alphabet"]:
        """True at the slots that the task has."""
        mask = torch.zeros(self.alphabet_size, dtype=torch.bool)
        mask[self._index()] = True
        return mask

    def scatter(
        self, task_scores: Float[Tensor, "batch actions"]
    ) -> Float[Tensor, "batch alphabet"]:
        """Scores of the task's own actions, moved to their slots; 0 where illegal."""
        scores = task_scores.new_zeros(task_scores.shape[0], self.alphabet_size)
        scores[:, self._index().to(task_scores.device)] = task_scores
        return scores

    def gather(self, scores: Float[Tensor, "batch alphabet"]) -> Float[Tensor, "batch actions"]:
        """The inverse of `scatter`: an illegal slot can never be chosen from what is left."""
        return scores[:, self._index().to(scores.device)]

    def _index(self) -> Int64[Tensor, " actions"]:
        return torch.tensor(self.slots, dtype=torch.int64)


def task_action_names(task: str, num_actions: int) -> tuple[str, ...]:
    """Names for the actions of a task that is not an Atari game: each gets slots of its own."""
    return tuple(f"{task}/{action}" for action in range(num_actions))


def build_alphabet(task_actions: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The alphabet of a student that plays these tasks.

    Args:
        task_actions: action names of each task, in the task's own order.

    Returns:
        The 18 Atari actions if any task uses one of them, then the other tasks' own slots.
    """
    used = [name for names in task_actions.values() for name in names]
    atari = ATARI_ALPHABET if any(name in ATARI_ALPHABET for name in used) else ()
    return atari + tuple(dict.fromkeys(name for name in used if name not in ATARI_ALPHABET))


def build_action_map(task_actions: Iterable[str], alphabet: Sequence[str]) -> ActionMap:
    """The map of one task's actions into an alphabet.

    Raises:
        ValueError: if an action has no slot, or two actions share one.
    """
    names = tuple(task_actions)
    places = {name: slot for slot, name in enumerate(alphabet)}
    missing = [name for name in names if name not in places]
    if missing:
        raise ValueError(f"actions {missing} have no slot in the alphabet {tuple(alphabet)}")
    if len(set(names)) != len(names):
        raise ValueError(f"every action needs a slot of its own, got {names}")
    return ActionMap(tuple(places[name] for name in names), len(alphabet))
