"""Agents of Stable-Baselines3: DQN, QR-DQN (of its contrib package), PPO and A2C.

``policy.pth`` says by its names which of them it is. What it does not say, activations and
strides, is that library's default: hidden layers with ReLU in DQN and QR-DQN and with tanh in PPO
and A2C, which may be overridden; convolutions as in Mnih et al. (2015) with ReLU, which may not.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from actor_mimic.errors import ConfigError, DataError
from actor_mimic.networks.layered import LayeredSpec
from actor_mimic.teachers.layout import Imported, Parts, by_action, refuse_actions

QUANTILES = 200  # of QR-DQN, unless its author chose others
# How the names of each algorithm's network begin; its output layer is the last of these.
_VALUE_NETS = {"sb3-dqn": "q_net", "sb3-qrdqn": "quantile_net"}
_EXPECTED = "q_net.q_net.* (DQN), quantile_net.quantile_net.* (QR-DQN) or action_net.* (PPO, A2C)"


def from_sb3(
    tensors: Mapping[str, Tensor],
    source: str,
    *,
    obs_shape: tuple[int, ...],
    actions: Sequence[str],
    activation: str | None,
    quantiles: int | None,
) -> Imported:
    """A policy of Stable-Baselines3 as a network of ours.

    Args:
        tensors: of its ``policy.pth``.
        source: of them, for messages.
        obs_shape: what the task shows.
        actions: what it can be asked to do there.
        activation: of the hidden layers; None for the library's default.
        quantiles: of each action, if it is QR-DQN; None for the library's default. Its file does
            not say: 400 outputs may be 200 quantiles of two actions, or 100 of four.

    Raises:
        ConfigError: if it has no quantiles, and a number of them was given.
        DataError: if it is another algorithm's, or has layers that the library's own policies
            have not.
    """
    parts = Parts(tensors, source)
    if quantiles is not None and not parts.has("quantile_net."):
        raise ConfigError(f"quantiles = {quantiles}: {source} is no QR-DQN agent")
    if "action_net.weight" in tensors and "log_std" not in tensors:
        return _actor_critic(parts, source, obs_shape, actions, activation or "tanh")
    for layout, net in _VALUE_NETS.items():
        if parts.has(f"{net}.{net}."):
            bins = (quantiles or QUANTILES) if layout == "sb3-qrdqn" else 1
            return _value_net(parts, layout, source, obs_shape, actions, bins, activation)
    raise DataError(
        f"{source}: expected tensors named {_EXPECTED}, for discrete actions, got "
        f"{', '.join(sorted(tensors))[:300]}"
    )


def _value_net(
    parts: Parts,
    layout: str,
    source: str,
    obs_shape: tuple[int, ...],
    actions: Sequence[str],
    bins: int,
    activation: str | None,
) -> Imported:
    net = _VALUE_NETS[layout]
    parts.drop(f"{net}_target.")
    _add_extractor(parts, f"{net}.features_extractor.")
    indices = parts.indices(f"{net}.{net}.")
    if not indices:
        raise DataError(f"{source}: expected layers {net}.{net}.0 and on, got none with a number")
    *hidden, last = indices
    for index in hidden:
        parts.add_linear(f"{net}.{net}.{index}", activation or "relu")
    head = {part: parts.take(f"{net}.{net}.{last}.{part}", n) for part, n in _HEAD}
    parts.finish()
    rows, num_actions = len(head["bias"]), len(actions)
    if layout == "sb3-qrdqn" and rows != bins * num_actions:
        raise DataError(
            f"{source}: expected {num_actions} actions of {bins} quantiles each, got {rows} "
            "outputs; import it with --quantiles N if its author chose another number"
        )
    if rows != bins * num_actions:
        refuse_actions(source, rows, actions)
    spec = LayeredSpec(obs_shape, tuple(parts.layers), num_actions, bins)
    # That library counts actions fastest, we count quantiles fastest.
    weights = {f"head.{part}": by_action(tensor, num_actions) for part, tensor in head.items()}
    return Imported(layout, spec, parts.taken | weights)


def _actor_critic(
    parts: Parts,
    source: str,
    obs_shape: tuple[int, ...],
    actions: Sequence[str],
    activation: str,
) -> Imported:
    extractor = "features_extractor."
    if parts.has(f"pi_{extractor}"):
        # The actor's own, or its other name for the one that it shares with the critic.
        parts.drop(extractor)
        extractor = f"pi_{extractor}"
    parts.drop("vf_features_extractor.", "mlp_extractor.value_net.", "value_net.")
    _add_extractor(parts, extractor)
    # Before its version 1.8 actor and critic could begin with layers in common.
    for net in ("mlp_extractor.shared_net.", "mlp_extractor.policy_net."):
        for index in parts.indices(net):
            parts.add_linear(f"{net}{index}", activation)
    head = {f"head.{part}": parts.take(f"action_net.{part}", axes) for part, axes in _HEAD}
    parts.finish()
    if len(head["head.bias"]) != len(actions):
        refuse_actions(source, len(head["head.bias"]), actions)
    spec = LayeredSpec(obs_shape, tuple(parts.layers), len(actions), scores="logits")
    return Imported("sb3-actor-critic", spec, parts.taken | head)


_HEAD = (("weight", 2), ("bias", 1))


def _add_extractor(parts: Parts, prefix: str) -> None:
    """The Nature CNN in front of the hidden layers; vectors have nothing there."""
    if parts.has(prefix):
        parts.add_nature([f"{prefix}cnn.{index}" for index in (0, 2, 4)])
        parts.add_linear(f"{prefix}linear.0", "relu")
