"""Agents of CleanRL, from the ``.cleanrl_model`` files of its Q-learning scripts.

One list of layers named ``network``, ReLU between them, tells by its names and shapes which script
wrote it: ``dqn``, ``dqn_atari``, ``qdagger_dqn_atari_impalacnn``; with a buffer ``atoms`` beside it
``c51`` or ``c51_atari``, whose distributions are read as their expected values.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from actor_mimic.errors import DataError
from actor_mimic.networks.layered import Layer, LayeredSpec
from actor_mimic.teachers.layout import Imported, Parts, refuse_actions

_NATURE = (0, 2, 4, 7, 9)  # places of the layers with weights
_IMPALA = (0, 1, 2, 5, 7)


def from_cleanrl(
    tensors: Mapping[str, Tensor],
    source: str,
    *,
    obs_shape: tuple[int, ...],
    actions: Sequence[str],
) -> Imported:
    """A Q-network of CleanRL as a network of ours.

    Args:
        tensors: of the file.
        source: of them, for messages.
        obs_shape: what the task shows.
        actions: what it can be asked to do there.

    Raises:
        DataError: if it is no such network, or one for other actions.
    """
    parts = Parts(tensors, source)
    indices = parts.indices("network.")
    first = tensors.get("network.0.weight")
    if tuple(indices) == _IMPALA and "network.0.conv.weight" in tensors:
        layout = "cleanrl-impala"
        for index in _IMPALA[:3]:
            parts.add_residual_stage(f"network.{index}")
        parts.layers += [Layer("flatten"), Layer("relu")]
        parts.add_linear(f"network.{_IMPALA[3]}", "relu")
    elif tuple(indices) == _NATURE and first is not None and first.ndim == 4:
        layout = "cleanrl-atari"
        parts.add_nature([f"network.{index}" for index in _NATURE[:3]])
        parts.add_linear(f"network.{_NATURE[3]}", "relu")
    elif indices and indices == list(range(0, 2 * len(indices), 2)):
        layout = "cleanrl-mlp"
        for index in indices[:-1]:
            parts.add_linear(f"network.{index}", "relu")
    else:
        raise DataError(
            f"{source}: expected the layers of CleanRL's dqn, c51 or impalacnn, got "
            f"{', '.join(sorted(tensors))[:300]}"
        )
    head = {
        f"head.{part}": parts.take(f"network.{indices[-1]}.{part}", axes)
        for part, axes in (("weight", 2), ("bias", 1))
    }
    bins, kind = 1, "mean"
    if "atoms" in tensors:
        head["support"] = parts.take("atoms", 1)
        bins, kind = len(head["support"]), "expectation"
        layout += "-c51"
    parts.finish()
    rows = len(head["head.bias"])
    if rows != bins * len(actions):
        refuse_actions(source, rows / bins, actions)
    spec = LayeredSpec(obs_shape, tuple(parts.layers), len(actions), bins, kind)
    return Imported(layout, spec, parts.taken | head)
