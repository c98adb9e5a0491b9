"""Stage: a Q-network on a new task that starts from the weights of a student or an expert.

Parisotto, Ba and Salakhutdinov (2016), section 5.2: take the trained network, put a new output
layer on it, and train everything as an ordinary DQN. Apart from where the weights come from, this
is the expert stage, and the states are its states.
"""

import dataclasses

from actor_mimic.config import NetworkConfig, TransferConfig
from actor_mimic.envs.vector_step import VectorEnv, observation_shape
from actor_mimic.errors import ConfigError, DataError
from actor_mimic.learners.warm_start import TensorOrigin, warm_start, warm_start_convolutions
from actor_mimic.networks.branched import BranchedNetwork
from actor_mimic.networks.layered import LayeredNetwork
from actor_mimic.networks.q_network import QNetwork
from actor_mimic.networks.student import Student
from actor_mimic.networks.torsos import TorsoSpec
from actor_mimic.stages.expert import fresh_network
from actor_mimic.storage.checkpoint import Checkpoint
from actor_mimic.teachers.own import load_network


def with_network_of(config: TransferConfig, parent: Checkpoint) -> TransferConfig:
    """The configuration with the parent's network: the weights decide kind, width and norm.

    And whether it is centred: weights that have learnt to read frames less a background do not
    know what to make of whole ones.

    Raises:
        DataError: if the parent is an import, whose layers need not be those of any kind of ours.
    """
    if "torso" not in parent.network:
        raise DataError(
            f"{parent.path} was imported: it can teach, and a student of it can be the start of a "
            "transfer, but not the import itself"
        )
    spec = TorsoSpec.from_json(parent.network["torso"])
    network = NetworkConfig(spec.kind, spec.width, spec.norm, spec.centred)
    return dataclasses.replace(config, network=network)


def transfer_network(
    config: TransferConfig, env: VectorEnv, parent: Checkpoint | None
) -> tuple[QNetwork, list[TensorOrigin]]:
    """The network that a transfer starts from, and where each of its tensors came from.

    Args:
        config: what to do; its network is the parent's (see `with_network_of`).
        env: the new task.
        parent: a student's or an expert's checkpoint; None leaves everything random, which is
            the arm that the others are compared with.

    Raises:
        DataError: if the parent reads observations of another shape.
        ConfigError: if its outputs are to be copied, and stand on hidden layers of their own.
    """
    if parent is None:
        network = fresh_network(config, env)
        return network, [TensorOrigin(name, "fresh", rows=0) for name in network.state_dict()]
    if parent.network.get("vectors"):
        raise DataError(
            f"{parent.path} has an encoder for each of its tasks and none for {config.task}: "
            "a network for one task cannot start from it"
        )
    spec = TorsoSpec.from_json(parent.network["torso"])
    if spec.obs_shape != observation_shape(env):
        raise DataError(
            f"{parent.path} reads observations of shape {spec.obs_shape}, "
            f"{config.task} gives {observation_shape(env)}"
        )
    network = fresh_network(config, env)
    source = load_network(parent)
    assert not isinstance(source, LayeredNetwork), "refused by with_network_of"
    if isinstance(source, Student):
        if isinstance(source.network, BranchedNetwork):
            if config.head != "fresh":
                raise ConfigError(
                    f"head = {config.head!r}: the outputs of {parent.path} stand on hidden layers "
                    "of their own, which no other task has; choose head = 'fresh'"
                )
            shared = source.network.torso.state_dict(prefix="torso.")
            return network, warm_start_convolutions(network, shared)
        source_outputs, source_network = source.alphabet, source.network
    else:
        (source_outputs,) = (tuple(names) for names in parent.tasks.values())
        source_network = source
    origins = warm_start(
        network,
        source_network.state_dict(),
        source_outputs=source_outputs,
        source_quantiles=source_network.num_quantiles,
        target_actions=env.action_names,
        head=config.head,
    )
    return network, origins
