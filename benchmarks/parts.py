"""The parts of a learning loop in bare ale-py and bare PyTorch: what a floor is made of.

    python -m benchmarks.parts [--num-envs 64] [--batch 128] [--width 0.5] [--norm all]
        [--no-centred] [--regression]

Nothing of this project is timed here; the network is written again for that reason. Acting and
training are measured in four variants, and the fastest counts:

    ========================  ==============================================================
    contiguous                NCHW tensors; PyTorch splits every operation over its threads
    channels_last             the same with NHWC memory
    contiguous, split         one Python thread for each core takes its share of the rows through
                              the whole network; the gradients are added, then one Adam step
    channels_last, split      the same with NHWC memory
    ========================  ==============================================================

Adam is PyTorch's fused one, gradients are set to None, observations and the background that a
centred network takes away already lie in the variant's memory format. Every figure is the median
of calls after a warm-up, and the variants take turns.
"""

import argparse
import itertools
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial, reduce
from typing import Any, TypeVar

import numpy as np
import torch
from ale_py import AtariVectorEnv
from torch import Tensor, nn

from actor_mimic.compute import choose_compute
from benchmarks.timing import median_rate, median_rates

NUM_OUTPUTS = 18
MEMORY_FORMATS = {
    "contiguous": torch.contiguous_format,
    "channels_last": torch.channels_last,
}

Share = TypeVar("Share")


@dataclass(frozen=True)
class Part:
    """How fast one part is.

    Attributes:
        items_per_s: steps, forward passes or trained examples per second; of the fastest variant.
        variant: the fastest.
        variants: items per second of every variant.
    """

    items_per_s: float
    variant: str
    variants: dict[str, float]


@dataclass(frozen=True)
class Parts:
    """The parts of one network on one machine, each measured when it is asked for.

    Attributes:
        width: factor on the Nature network's channels and hidden units.
        norm: layer norm before each ReLU: ``none``, ``dense`` or ``all``.
        centred: whether a background is taken away from the observations.
        regression: whether a linear layer from its features to a teacher's is trained too.
        low: whether to compute in bfloat16.
        threads: of the emulators and of PyTorch.
        seconds: for each variant.
    """

    width: float
    norm: str
    centred: bool
    regression: bool
    low: bool
    threads: int
    seconds: float

    def emulation(self, game: str, num_envs: int) -> Part:
        """Environment steps per second of ale-py alone, with random actions."""
        env = AtariVectorEnv(
            game,
            num_envs=num_envs,
            num_threads=min(self.threads, num_envs),
            repeat_action_probability=0.0,
            stack_num=1,
            frameskip=4,
            maxpool=True,
            noop_max=30,
            episodic_life=False,
            life_loss_info=True,
            reward_clipping=False,
            use_fire_reset=True,
        )
        env.reset(seed=0)
        rng = np.random.default_rng(0)
        actions = rng.integers(0, env.single_action_space.n, (1024, num_envs))
        position = 0

        def step() -> None:
            nonlocal position
            env.step(actions[position % len(actions)])
            position += 1

        rate = median_rate(step, num_envs, self.seconds)
        env.close()
        return Part(rate, "ale-py", {"ale-py": rate})

    def acting(self, batch: int, passes: int = 1) -> Part:
        """Observations per second, forward only: prepared once, then so many times through."""
        return self._fastest(batch, partial(_acting, passes=passes))

    def training(self, batch: int) -> Part:
        """Examples per second: forward, backward, clipping, Adam."""
        return self._fastest(batch, _training)

    def _fastest(self, batch: int, prepare: "Callable[[_Setting], Callable[[], object]]") -> Part:
        calls: dict[str, Callable[[], object]] = {}
        with ExitStack() as pools:
            for layout in MEMORY_FORMATS:
                for workers in sorted({1, min(self.threads, batch)}):
                    pool = pools.enter_context(_Pool(workers))
                    name = layout if workers == 1 else f"{layout}, split"
                    calls[name] = partial(
                        _with_threads,
                        self.threads if workers == 1 else 1,
                        prepare(_Setting(self, batch, layout, pool)),
                    )
            rates = median_rates(calls, batch, self.seconds)
        torch.set_num_threads(self.threads)
        fastest = max(rates, key=lambda name: rates[name])
        return Part(rates[fastest], fastest, rates)


def _with_threads(threads: int, call: Callable[[], object]) -> object:
    torch.set_num_threads(threads)  # a tenth of a microsecond
    return call()


def bare_torso(width: float, norm: str) -> tuple[nn.Sequential, int]:
    """The Nature network up to its last hidden layer, with layer norm, and that layer's units."""
    a, b, hidden = round(32 * width), round(64 * width), round(512 * width)

    def normed(channels: int) -> list[nn.Module]:
        return [nn.GroupNorm(1, channels)] if norm == "all" else []

    layers = nn.Sequential(
        *[nn.Conv2d(4, a, 8, 4), *normed(a), nn.ReLU()],
        *[nn.Conv2d(a, b, 4, 2), *normed(b), nn.ReLU()],
        *[nn.Conv2d(b, b, 3, 1), *normed(b), nn.ReLU()],
        nn.Flatten(),
        nn.Linear(b * 49, hidden),
        *([nn.LayerNorm(hidden)] if norm != "none" else []),
        nn.ReLU(),
    )
    return layers, hidden


class _Pool:
    """Threads of one PyTorch thread each; the calling one takes the first share itself."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        # PyTorch keeps the number of threads per thread: each has to be told.
        self._others = (
            ThreadPoolExecutor(workers - 1, initializer=torch.set_num_threads, initargs=(1,))
            if workers > 1
            else None
        )

    def map(self, share: Callable[[slice], Share], rows: int) -> list[Share]:
        """Results for equal slices of the rows, in their order."""
        bounds = [rows * index // self._workers for index in range(self._workers + 1)]
        first, *rest = [slice(*pair) for pair in itertools.pairwise(bounds)]
        futures = [self._others.submit(share, part) for part in rest] if self._others else []
        return [share(first), *(future.result() for future in futures)]

    def __enter__(self) -> "_Pool":
        return self

    def __exit__(self, *_: object) -> None:
        if self._others:
            self._others.shutdown()


class _Setting:
    """A network and its observations, laid out for one variant."""

    def __init__(self, parts: Parts, batch: int, layout: str, pool: _Pool) -> None:
        memory_format = MEMORY_FORMATS[layout]
        pixels = np.random.default_rng(0).integers(0, 256, (batch, 4, 84, 84), dtype=np.uint8)
        torso, hidden = bare_torso(parts.width, parts.norm)
        self.torso = torso.to(memory_format=memory_format)
        self.heads = [nn.Linear(hidden, NUM_OUTPUTS)]
        if parts.regression:
            self.heads.append(nn.Linear(hidden, hidden))
        self.obs = torch.from_numpy(pixels).contiguous(memory_format=memory_format)
        self.batch = batch
        self.pool = pool
        self._precision = torch.bfloat16 if parts.low else torch.float32
        background = torch.full((1, 4, 84, 84), 0.5, dtype=self._precision)
        self._background = (
            background.contiguous(memory_format=memory_format) if parts.centred else None
        )

    def images(self, rows: slice) -> Tensor:
        """Observations as the network takes them."""
        scaled = self.obs[rows].to(self._precision).mul_(1 / 255)
        return scaled if self._background is None else scaled.sub_(self._background)

    def features(self, images: Tensor) -> Tensor:
        """The last hidden layer in float32, in which the heads compute."""
        # Autocast belongs to a thread, hence in here.
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._precision != torch.float32):
            return self.torso(images).float()


def _acting(setting: _Setting, passes: int) -> Callable[[], object]:
    def share(rows: slice) -> list[Tensor]:
        with torch.inference_mode():
            images = setting.images(rows)
            return [setting.heads[0](setting.features(images)) for _ in range(passes)]

    return lambda: setting.pool.map(share, setting.batch)


def _training(setting: _Setting) -> Callable[[], object]:
    modules = [setting.torso, *setting.heads]
    parameters = [parameter for module in modules for parameter in module.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-4, fused=True)

    def share(rows: slice) -> Sequence[Tensor]:
        features = setting.features(setting.images(rows))
        sums = [head(features).square().sum() for head in setting.heads]
        # Not `backward`, which would add into one `.grad` from several threads.
        return torch.autograd.grad(reduce(torch.add, sums) / setting.batch, parameters)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        gradients, *others = setting.pool.map(share, setting.batch)
        for more in others:
            torch._foreach_add_(gradients, more)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        torch.nn.utils.clip_grad_norm_(parameters, 10.0)
        optimizer.step()

    return step


def main(arguments: list[str] | None = None) -> int:
    """Prints every variant of every part."""
    parser = argparse.ArgumentParser(description="Parts of a loop in bare ale-py and PyTorch.")
    parser.add_argument("--game", default="assault")
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--norm", default="all", choices=("none", "dense", "all"))
    parser.add_argument(
        "--centred",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="take a background away",
    )
    parser.add_argument("--regression", action="store_true", help="of the features, in training")
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each variant")
    parser.add_argument("--precision", default="auto", help="auto, float32 or bfloat16")
    options = parser.parse_args(arguments)
    compute = choose_compute("cpu", options.precision)
    low = compute.precision == "bfloat16"
    parts = Parts(
        width=options.width,
        norm=options.norm,
        centred=options.centred,
        regression=options.regression,
        low=low,
        threads=compute.threads,
        seconds=options.seconds,
    )
    print(f"{compute.threads} threads, {compute.precision}, width {options.width:g}")
    found: dict[str, Part] = {
        f"emulation, {options.num_envs} environments": parts.emulation(
            options.game, options.num_envs
        ),
        f"acting, batch {options.num_envs}": parts.acting(options.num_envs),
        f"training, batch {options.batch}": parts.training(options.batch),
    }
    for name, part in found.items():
        _print_part(name, asdict(part))
    return 0


def _print_part(name: str, part: dict[str, Any]) -> None:
    print(f"{name} (per second)")
    for variant, rate in part["variants"].items():
        print(f"  {variant:24}{rate:10,.0f}{'  <- fastest' * (variant == part['variant'])}")


if __name__ == "__main__":
    sys.exit(main())
