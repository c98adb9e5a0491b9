"""A network beside its compiled twin, in a process where no types are checked.

The compiler cannot look through the checks that the tests put around every function. Prints the
largest difference of scores and gradients, relative to the largest value of each tensor.

    python compiled_twin.py trace|float32|bfloat16
"""

import sys

import torch

from actor_mimic.compute import Compute
from actor_mimic.networks.q_network import QNetwork
from actor_mimic.networks.torsos import TorsoSpec


def training_step(network, forward, obs):
    # Cloned at once: the next call overwrites what a CUDA graph returned.
    scores = forward(obs).scores
    gradients = torch.autograd.grad(scores.square().sum(), list(network.parameters()))
    found = [tensor.detach().clone() for tensor in (scores, *gradients)]
    with torch.no_grad():
        return [*found, forward(obs).scores.clone()]


def main(what: str) -> None:
    device = "cpu" if what == "trace" else "cuda"
    compute = Compute(device, "float32" if what == "trace" else what, 1, compiled=True)
    compute.start()
    spec = TorsoSpec("nature", (4, 84, 84), 0.25, "all")
    network = QNetwork(spec, 6, generator=torch.Generator().manual_seed(0))
    compute.place(network)
    obs = torch.randint(0, 256, (32, 4, 84, 84), dtype=torch.uint8, device=device)
    if what == "trace":  # what a compiler sees, without a compiler: one graph, the same numbers
        twin = torch.compile(network, dynamic=False, fullgraph=True, backend="aot_eager")
    else:
        twin = compute.fixed_shape(network)
    expected = training_step(network, network, obs)
    worst = 0.0
    for _ in range(3):  # on CUDA: warm-up, recording, replay
        for ours, theirs in zip(training_step(network, twin, obs), expected, strict=True):
            worst = max(worst, float((ours - theirs).abs().max() / theirs.abs().max()))
    print(worst)


if __name__ == "__main__":
    main(sys.argv[1])
