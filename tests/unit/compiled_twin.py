"""A network beside its compiled twin, in a process where no types are checked.

The compiler cannot look through the checks that the tests put around every function. Prints the
largest difference: of scores and gradients, relative to the largest value of each tensor, or of the
losses of a learning loop, relative to each.

    python compiled_twin.py network|pqn|dqn trace|float32|bfloat16
"""

import dataclasses
import functools
import sys
from collections.abc import Callable

import torch

from actor_mimic.compute import Compute
from actor_mimic.flat_config import build_config
from actor_mimic.networks.q_network import QNetwork
from actor_mimic.networks.torsos import TorsoSpec
from actor_mimic.stages.env_groups import make_task_envs
from actor_mimic.stages.expert import expert_state, fresh_network


def training_step(network, forward, obs):
    # Cloned at once: the next call overwrites what a CUDA graph returned.
    scores = forward(obs).scores
    gradients = torch.autograd.grad(scores.square().sum(), list(network.parameters()))
    found = [tensor.detach().clone() for tensor in (scores, *gradients)]
    with torch.no_grad():
        return [*found, forward(obs).scores.clone()]


def of_a_network(what: str) -> float:
    """Scores and gradients of one batch."""
    compute = compute_of(what)
    compute.start()
    spec = TorsoSpec("nature", (4, 84, 84), 0.25, "all")
    network = QNetwork(spec, 6, generator=torch.Generator().manual_seed(0))
    compute.place(network)
    obs = torch.randint(0, 256, (32, 4, 84, 84), dtype=torch.uint8, device=compute.device)
    twin = compute.fixed_shape(network)
    expected = training_step(network, network, obs)
    worst = 0.0
    for _ in range(3):  # on CUDA: warm-up, recording, replay
        for ours, theirs in zip(training_step(network, twin, obs), expected, strict=True):
            worst = max(worst, float((ours - theirs).abs().max() / theirs.abs().max()))
    return worst


def of_a_loop(what: str, settings: dict) -> float:
    """Losses of a stage's first updates, whose games only explore and so are the same."""
    found = []
    for compute in (compute_of(what), dataclasses.replace(compute_of(what), compiled=False)):
        config = build_config("expert", {"task": "pong", "total_steps": 10_000, **settings})
        compute.start()
        envs = make_task_envs(config, compute)
        state = expert_state(config, compute, envs, fresh_network(config, envs[0]))
        state.start()
        advances = [state.advance() for _ in range(6)]
        state.close()
        found.append([float(values["loss"]) for values in advances if "loss" in values])
    ours, theirs = map(torch.tensor, found)
    assert len(ours) >= 4
    assert min(theirs) > 0.0
    return float(((ours - theirs).abs() / theirs).max())


def compute_of(what: str) -> Compute:
    if what != "trace":
        return Compute("cuda", what, 2, compiled=True)
    # What a compiler sees, without a compiler: one graph, the same numbers.
    traced = functools.partial(torch.compile, dynamic=False, fullgraph=True, backend="aot_eager")
    return Traced("cpu", "float32", 2, compiled=True, traced=traced)


@dataclasses.dataclass(frozen=True)
class Traced(Compute):
    """Compiles for a CPU."""

    traced: Callable = lambda network: network

    def fixed_shape(self, network):
        return self.traced(network) if self.compiled else network


EXPLORING = {"epsilon_start": 1.0, "epsilon_end": 1.0, "centred": False, "width": 0.125}
LOOPS = {
    "pqn": {
        "algorithm": "pqn",
        "num_envs": 4,
        "env_groups": 2,
        "rollout_steps": 4,
        "minibatch_size": 8,
    },
    "dqn": {
        "algorithm": "dqn",
        "double": True,
        "num_quantiles": 3,
        "num_envs": 4,
        "update_every_steps": 4,
        "batch_size": 16,
        "n_step": 1,
        "learning_starts_steps": 8,
        "replay_capacity_steps": 400,
        "target_period_updates": 3,
    },
}


def main(subject: str, what: str) -> None:
    print(
        of_a_network(what) if subject == "network" else of_a_loop(what, EXPLORING | LOOPS[subject])
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
