"""Torsos: from observations to the last hidden layer.

Axes: batch, channel (stacked frames, oldest first), height, width, features.

Every torso takes raw observations (uint8 images or float vectors), scales them itself, once, on
the device, unless that was done before, and may run in bfloat16; what it returns is float32.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from actor_mimic.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class TorsoSpec:
    """What a torso is made of; stored in every checkpoint.

    Attributes:
        kind: ``nature`` (Mnih et al. 2015), ``large`` (the transfer network of Parisotto et al.
            2016), ``impala`` (the residual network of Espeholt et al. 2018); for vectors ``mlp``
            (two hidden layers of 128) or ``wide_mlp`` (of 512).
        width: factor on every channel and hidden count of the kind.
        norm: layer norm before each ReLU: ``none``, ``dense`` (hidden layers only) or ``all``.
        obs_shape: channels, height, width of the stacked images, or the vector's length.
        centred: the torso reads images less a background that is stored with its weights.
    """

    kind: str
    obs_shape: tuple[int, ...]
    width: float = 1.0
    norm: str = "none"
    centred: bool = False

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self) | {"obs_shape": list(self.obs_shape)}

    @staticmethod
    def from_json(data: dict[str, Any]) -> "TorsoSpec":
        """The inverse of `to_json`."""
        fields: dict[str, Any] = data | {"obs_shape": tuple(data["obs_shape"])}
        return TorsoSpec(**fields)


@dataclass(frozen=True)
class _Shape:
    """Channels, kernel, stride, padding of each convolution, then the hidden layers.

    Or in place of the convolutions the channels of residual sections; see `_section`.
    """

    convolutions: Sequence[tuple[int, int, int, int]] = field(default_factory=tuple)
    hidden: Sequence[int] = field(default_factory=tuple)
    sections: Sequence[int] = field(default_factory=tuple)

    @property
    def reads_images(self) -> bool:
        return bool(self.convolutions or self.sections)


SHAPES = {
    "nature": _Shape([(32, 8, 4, 0), (64, 4, 2, 0), (64, 3, 1, 0)], [512]),
    # Parisotto et al. (2016), section 5.2, with the padding of the authors' released code.
    "large": _Shape([(256, 8, 4, 1), (512, 4, 2, 0), (512, 3, 1, 0), (512, 3, 1, 0)], [2048, 1024]),
    # Espeholt et al. (2018), arXiv:1802.01561, the larger of two networks, without its LSTM: five
    # convolutions in each section.
    "impala": _Shape([], [256], sections=[16, 32, 32]),
    "mlp": _Shape([], [128, 128]),
    "wide_mlp": _Shape([], [512, 512]),
}
NORMS = ("none", "dense", "all")


class Torso(nn.Module):
    """Convolutions (for images), then hidden layers; ReLU after each, nothing after the last.

    Args:
        spec: what it is made of.
        hidden: false for the convolutions alone, where every task has `HiddenLayers` of its own.

    Raises:
        ConfigError: if the spec names no known kind or norm, does not fit the observations, or
            without its hidden layers has none at all.
    """

    def __init__(self, spec: TorsoSpec, *, hidden: bool = True) -> None:
        super().__init__()
        _check(spec)
        if not (hidden or SHAPES[spec.kind].reads_images):
            raise ConfigError(
                f"the network {spec.kind!r} has no convolutions that tasks could share"
            )
        shape = SHAPES[spec.kind]
        self.spec = spec
        self.precision = torch.float32
        layers: list[nn.Module] = []
        fan_in = spec.obs_shape[0]
        for channels, kernel, stride, padding in shape.convolutions:
            fan_out = max(1, round(channels * spec.width))
            layers.append(nn.Conv2d(fan_in, fan_out, kernel, stride, padding))
            # One group over channels and places is layer norm with one scale per channel.
            layers += [nn.GroupNorm(1, fan_out)] if spec.norm == "all" else []
            layers.append(nn.ReLU())
            fan_in = fan_out
        for channels in shape.sections:
            fan_out = max(1, round(channels * spec.width))
            layers += _section(fan_in, fan_out, spec.norm)
            fan_in = fan_out
        if shape.sections:
            layers += _normalised_relu(fan_in, spec.norm)
        if shape.reads_images:
            layers.append(_Flatten())
            fan_in = _flat_size(layers, spec)
        if hidden:
            own, fan_in = _hidden_layers(spec, fan_in)
            layers += own
        self.layers = nn.Sequential(*layers)
        self.num_features = fan_in
        if spec.centred:
            # Of every frame of a stack, in 0..1.
            self.background = nn.Buffer(torch.zeros(spec.obs_shape[1:]))

    def forward(self, obs: Shaped[Tensor, "batch ..."]) -> Float[Tensor, "batch features"]:
        """The last layer, after its ReLU.

        Args:
            obs: raw, or as `prepared` gives them.
        """
        # Vectors stay in float32: a position in CartPole has no digits to spare.
        low = len(self.spec.obs_shape) == 3 and self.precision != torch.float32
        obs = self.prepared(obs)
        with torch.autocast(obs.device.type, dtype=torch.bfloat16, enabled=low):
            return self.layers(obs).float()

    def prepared(self, obs: Shaped[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Observations as the layers take them: raw ones scaled and centred, others as they are.

        For networks that differ in nothing but what they learn, once is enough.
        """
        if len(self.spec.obs_shape) == 1:
            return obs.float()
        if obs.dtype != torch.uint8:
            return obs
        images = self.scaled(obs)
        if self.spec.centred:
            take_away(images, self.background)
        return images

    def scaled(
        self, images: Shaped[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel height width"]:
        """Raw images in 0..1, in the network's precision, laid out as the layers like them.

        Args:
            images: uint8.
        """
        if images.device.type == "cpu" and self.precision == torch.float32:
            # A CPU convolves 4 channels about twice as fast in float32 when they lie side by side.
            # In bfloat16 that saves less than it takes to lay them so (decision 17).
            images = channels_last(images)
        # Not later: 0..255 is exact in bfloat16. In place: a second batch of images would take
        # longer to allocate than to scale.
        return images.to(self.precision).mul_(1.0 / 255.0)


def take_away(
    images: Float[Tensor, "batch channel height width"],
    background: Float[Tensor, "height width"],
) -> None:
    """Subtracts a background from every frame, in place.

    Args:
        images: as `Torso.scaled` gives them.
        background: in 0..1.
    """
    background = background.to(images.dtype)
    if not images.is_contiguous():
        # Laid out as one image is: broadcast over channels that lie side by side, a subtraction
        # takes eight times as long, in bfloat16 twenty.
        stacked = background[:, :, None].expand(-1, -1, images.shape[1]).contiguous()
        background = stacked.permute(2, 0, 1)
    images.sub_(background)


class HiddenLayers(nn.Module):
    """What follows the convolutions of a torso: one task's own, where tasks share only those.

    Args:
        spec: of the torso.
        num_inputs: what its convolutions give.
    """

    def __init__(self, spec: TorsoSpec, num_inputs: int) -> None:
        super().__init__()
        self.spec = spec
        self.precision = torch.float32
        layers, self.num_features = _hidden_layers(spec, num_inputs)
        self.layers = nn.Sequential(*layers)

    def forward(self, maps: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch features"]:
        """The last hidden layer, after its ReLU."""
        low = self.precision != torch.float32
        with torch.autocast(maps.device.type, dtype=torch.bfloat16, enabled=low):
            return self.layers(maps).float()


class Residual(nn.Module):
    """Two 3x3 convolutions, a ReLU before each, and around both a way past them."""

    def __init__(self, channels: int, norm: str) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_normalised_relu(channels, norm),
            nn.Conv2d(channels, channels, 3, padding=1),
            *_normalised_relu(channels, norm),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(
        self, maps: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel height width"]:
        """The maps, and what the convolutions add to them."""
        return maps + self.layers(maps)


def _hidden_layers(spec: TorsoSpec, fan_in: int) -> tuple[list[nn.Module], int]:
    """The hidden layers of a torso, and how many units the last one has."""
    layers: list[nn.Module] = []
    for units in SHAPES[spec.kind].hidden:
        fan_out = max(1, round(units * spec.width))
        layers.append(nn.Linear(fan_in, fan_out))
        layers += [nn.LayerNorm(fan_out)] if spec.norm != "none" else []
        layers.append(nn.ReLU())
        fan_in = fan_out
    return layers, fan_in


def _section(fan_in: int, channels: int, norm: str) -> list[nn.Module]:
    """A convolution, halved height and width, and two residual blocks."""
    return [
        nn.Conv2d(fan_in, channels, 3, padding=1),
        nn.MaxPool2d(3, stride=2, padding=1),
        Residual(channels, norm),
        Residual(channels, norm),
    ]


def _normalised_relu(channels: int, norm: str) -> list[nn.Module]:
    return [*([nn.GroupNorm(1, channels)] if norm == "all" else []), nn.ReLU()]


class _Flatten(nn.Flatten):
    """The same, but that on the way back gradients lie as what they are gradients of.

    A ReLU whose saved output lies channels last and whose gradient does not takes ten times as
    long.
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.requires_grad and not input.is_contiguous():
            input.register_hook(lambda grad: grad.contiguous(memory_format=torch.channels_last))
        return super().forward(input)


def channels_last(
    images: Shaped[Tensor, "batch channel height width"],
) -> Shaped[Tensor, "batch channel height width"]:
    """The same, each place's channels side by side in memory."""
    if images.is_contiguous(memory_format=torch.channels_last):
        return images
    batch, channels, height, width = images.shape
    stored = images.new_empty(batch, height, width, channels)
    # Channel by channel: `contiguous` takes twice as long for 64 Atari observations.
    for channel in range(channels):
        stored[..., channel] = images[:, channel]
    return stored.permute(0, 3, 1, 2)


def _flat_size(convolutions: Sequence[nn.Module], spec: TorsoSpec) -> int:
    try:
        with torch.no_grad():
            return nn.Sequential(*convolutions)(torch.zeros(1, *spec.obs_shape)).shape[1]
    except RuntimeError as error:
        raise ConfigError(
            f"images of {spec.obs_shape[1]} x {spec.obs_shape[2]} are too small for the network "
            f"{spec.kind!r}"
        ) from error


def _check(spec: TorsoSpec) -> None:
    if spec.kind not in SHAPES:
        raise ConfigError(
            f"unknown network {spec.kind!r}, expected one of {', '.join(SHAPES)}"
            f"{did_you_mean(spec.kind, SHAPES)}"
        )
    if spec.norm not in NORMS:
        raise ConfigError(
            f"unknown norm {spec.norm!r}, expected one of {', '.join(NORMS)}"
            f"{did_you_mean(spec.norm, NORMS)}"
        )
    if not (spec.width > 0 and math.isfinite(spec.width)):
        raise ConfigError(f"width must be positive and finite, got {spec.width}")
    if not spec.obs_shape or min(spec.obs_shape) < 1:
        raise ConfigError(f"the observations have the impossible shape {spec.obs_shape}")
    if spec.centred and len(spec.obs_shape) != 3:
        raise ConfigError("only images have a background to be centred on")
    needs_images = SHAPES[spec.kind].reads_images
    if len(spec.obs_shape) != (3 if needs_images else 1):
        raise ConfigError(
            f"the network {spec.kind!r} reads {'images' if needs_images else 'vectors'}, "
            f"the observations have shape {spec.obs_shape}"
        )
