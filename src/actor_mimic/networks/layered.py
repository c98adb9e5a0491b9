"""Networks that are described layer by layer: what other libraries' agents become here.

Our own networks have a name and a width (`torsos.SHAPES`); theirs have any hidden layers, other
activations, and output layers that are not read as they are. The description is plain data in a
checkpoint's manifest, which may be a stranger's: it is bounded, and a network is built without
memory for its weights until its tensors have been found to fit.

Axes: batch, channel (stacked frames, oldest first), height, width, features.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from actor_mimic.networks.q_network import Output

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
    "silu": nn.SiLU,
}
HEADS = ("mean", "expectation")
SCORES = ("values", "logits")

MAX_LAYERS = 64
MAX_SIZE = 1 << 16


@dataclass(frozen=True)
class Layer:
    """One layer; what it reads follows from those before it.

    Attributes:
        kind: ``conv``, ``linear``, ``residual_stage``, ``flatten`` or one of `ACTIVATIONS`.
        size: channels or units that leave it; 0 where it has no weights.
        kernel, stride, padding: of a ``conv``.
    """

    kind: str
    size: int = 0
    kernel: int = 0
    stride: int = 0
    padding: int = 0


@dataclass(frozen=True)
class LayeredSpec:
    """What a `LayeredNetwork` is made of; stored in checkpoints.

    Attributes:
        obs_shape: channels, height, width of the stacked images, or the vector's length.
        layers: up to the last hidden layer, whose activation comes last.
        num_outputs: actions of the task.
        bins: rows of the output layer for each action, side by side.
        head: how an action's bins become its score: their ``mean`` (quantiles; of one bin, the
            bin), or the ``expectation`` of a support under their softmax (C51).
        scores: what the scores are: ``values`` (expected returns) or ``logits`` of a policy.
        clip: observations are normalised by a stored mean and deviation, then clipped to this;
            None reads them as they are.

    Raises:
        ValueError: if it describes nothing that could be built.
    """

    obs_shape: tuple[int, ...]
    layers: tuple[Layer, ...]
    num_outputs: int
    bins: int = 1
    head: str = "mean"
    scores: str = "values"
    clip: float | None = None

    def __post_init__(self) -> None:
        sizes = [*self.obs_shape, self.num_outputs, self.bins]
        sizes += [layer.size for layer in self.layers if layer.size]
        if not all(type(size) is int and 1 <= size <= MAX_SIZE for size in sizes):
            raise ValueError(f"sizes must lie in 1..{MAX_SIZE}, got {sizes!r:.200}")
        if len(self.obs_shape) not in (1, 3) or len(self.layers) > MAX_LAYERS:
            raise ValueError(
                f"expected vectors or images and at most {MAX_LAYERS} layers, got observations of "
                f"shape {self.obs_shape!r:.100} and {len(self.layers)} layers"
            )
        if self.head not in HEADS or self.scores not in SCORES:
            raise ValueError(
                f"expected head {' or '.join(HEADS)} and scores {' or '.join(SCORES)}, "
                f"got {self.head!r:.100} and {self.scores!r:.100}"
            )
        largest = torch.finfo(torch.float32).max
        if self.clip is not None and not 0 < self.clip <= largest:
            raise ValueError(
                f"clip must be above 0 and at most {largest:g}, got {self.clip!r:.100}"
            )
        if self.clip is not None and len(self.obs_shape) != 1:
            raise ValueError("only vectors are normalised by stored statistics")

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        layers = [{k: v for k, v in asdict(layer).items() if v} for layer in self.layers]
        return asdict(self) | {"obs_shape": list(self.obs_shape), "layers": layers}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "LayeredSpec":
        """The inverse of `to_json`.

        Raises:
            KeyError, TypeError, ValueError: if the data describes no network.
        """
        layers = tuple(Layer(**layer) for layer in data["layers"])
        fields: dict[str, Any] = dict(data)
        return LayeredSpec(**fields | {"obs_shape": tuple(data["obs_shape"]), "layers": layers})


class LayeredNetwork(nn.Module):
    """One score per action of one task, and the features they were read from.

    Its weights lie on the ``meta`` device, without memory, until ``to_empty`` gives them some.

    Args:
        spec: what it is made of.

    Raises:
        ValueError: if the layers do not fit each other or the observations.
    """

    def __init__(self, spec: LayeredSpec) -> None:
        super().__init__()
        self.spec = spec
        self.precision = torch.float32
        layers: list[nn.Module] = []
        with torch.device("meta"):
            seen = torch.empty(1, *spec.obs_shape)
            for layer in spec.layers:
                layers.append(_build(layer, seen.shape))
                try:
                    seen = layers[-1](seen)
                except RuntimeError as error:
                    raise ValueError(f"{layer} does not fit what it reads: {error}") from error
            if seen.ndim != 2:
                raise ValueError(f"the last hidden layer must be flat, got {tuple(seen.shape)}")
            self.num_features = seen.shape[1]
            self.layers = nn.Sequential(*layers)
            self.head = nn.Linear(self.num_features, spec.num_outputs * spec.bins)
            if spec.head == "expectation":
                self.register_buffer("support", torch.empty(spec.bins))
            if spec.clip is not None:
                self.register_buffer("obs_mean", torch.empty(spec.obs_shape))
                self.register_buffer("obs_deviation", torch.empty(spec.obs_shape))

    def forward(self, obs: Shaped[Tensor, "batch ..."]) -> Output:
        """Scores and features of raw observations (uint8 images or float vectors).

        Images may run in bfloat16; the output layer and vectors stay in float32.
        """
        image = obs.dtype == torch.uint8
        low = self.precision != torch.float32 and image
        scaled = obs.to(self.precision).mul_(1.0 / 255.0) if image else obs.float()
        if self.spec.clip is not None:
            normal = (scaled - self.get_buffer("obs_mean")) / self.get_buffer("obs_deviation")
            scaled = normal.clamp(-self.spec.clip, self.spec.clip)
        with torch.autocast(obs.device.type, dtype=torch.bfloat16, enabled=low):
            features = self.layers(scaled).float()
        bins = self.head(features).unflatten(1, (self.spec.num_outputs, self.spec.bins))
        if self.spec.head == "expectation":
            return Output((bins.softmax(dim=2) * self.get_buffer("support")).sum(dim=2), features)
        return Output(bins.mean(dim=2), features)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` needs to build the same network; stored in checkpoints."""
        return self.spec.to_json()

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "LayeredNetwork":
        """A network of the recorded layers, without memory for its weights."""
        return LayeredNetwork(LayeredSpec.from_json(data))


class ResidualStage(nn.Module):
    """A convolution, a pooling that halves the image, two residual blocks.

    One stage of the network of Espeholt et al. (2018), arXiv:1802.01561, figure 3 (right).
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.block0 = _ResidualBlock(channels_out)
        self.block1 = _ResidualBlock(channels_out)

    def forward(self, image: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch d k l"]:
        """Half as high and as wide, rounded up."""
        pooled = functional.max_pool2d(self.conv(image), 3, stride=2, padding=1)
        return self.block1(self.block0(pooled))


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, image: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c h w"]:
        return image + self.conv1(functional.relu(self.conv0(functional.relu(image))))


def _build(layer: Layer, reads: torch.Size) -> nn.Module:
    """One layer for inputs of a shape, batch included."""
    match layer.kind:
        case "conv":
            return nn.Conv2d(reads[1], layer.size, layer.kernel, layer.stride, layer.padding)
        case "linear":
            return nn.Linear(reads[-1], layer.size)
        case "residual_stage":
            return ResidualStage(reads[1], layer.size)
        case "flatten":
            return nn.Flatten()
        case kind if kind in ACTIVATIONS:
            return ACTIVATIONS[kind]()
        case _:
            raise ValueError(f"unknown layer {layer.kind!r:.100}")
