"""Runs of experts that nobody trained, and how tests ship them."""

import torch

from actor_mimic.compute import Compute
from actor_mimic.flat_config import build_config, to_json
from actor_mimic.networks.q_network import QNetwork
from actor_mimic.networks.torsos import TorsoSpec
from actor_mimic.stages.shipping import ship_expert
from actor_mimic.storage.checkpoint import resolve_checkpoint, write_checkpoint
from actor_mimic.storage.run_dir import installed_versions, open_run

CARTPOLE = "gym:CartPole-v1"
NAME = "gym-CartPole-v1"
CPU = Compute("cpu", "float32", 1)


def network_of(spec, num_outputs=2, seed=0):
    network = QNetwork(spec, num_outputs, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for name, tensor in network.named_parameters():
            if tensor.ndim == 1:  # norms that have learnt something
                tensor.add_(0.1 * torch.randn(tensor.shape, generator=torch.Generator()))
            assert tensor.dtype == torch.float32, name
    return network


def make_run(path, *, seed=0, kind="expert", plays=CARTPOLE):
    """A run as `train-expert` leaves it, but for the training."""
    config = build_config("expert", {"task": CARTPOLE, "seed": seed, "exploration_fraction": 0.5})
    network = network_of(TorsoSpec("mlp", (4,), 0.5, "all"), seed=seed)
    stored = to_json(config) | {"compute": {"device": "cpu"}}
    with open_run(path, stage="expert", config=stored) as run:
        write_checkpoint(
            run.checkpoints,
            step=2_500_000,
            tensors={"model": network.state_dict(), "optimizer": {"m": torch.ones(3)}},
            state={},
            manifest={
                "kind": kind,
                "tasks": {plays: [f"{plays}/0", f"{plays}/1"]},
                "network": network.to_json(),
                "config": to_json(config),
                "protocol": "paper",
                "parents": [],
                "versions": installed_versions(),
            },
        )
        run.mark_complete({"seconds": 12.5})
    return path


def ship(run, **changes):
    arguments = {
        "episodes": 2,
        "num_threads": 1,
        "compute": CPU,
        "stop": lambda: None,
        "on_game": lambda *_: None,
    }
    return ship_expert(resolve_checkpoint(run), **(arguments | changes))
