"""From the name of a task to its environments."""

from actor_mimic.envs.atari import AtariEnvs
from actor_mimic.envs.gymnasium import GymnasiumEnvs
from actor_mimic.envs.vector_step import VectorEnv, observation_shape
from actor_mimic.protocols import Protocol, protocol_named
from actor_mimic.tasks import is_atari


def make_envs(
    task: str,
    *,
    num_envs: int,
    run_seed: int,
    protocol: Protocol | str = "paper",
    num_threads: int = 1,
    with_picture: bool = False,
) -> VectorEnv:
    """N environments of a task.

    Args:
        task: an Atari ROM name (``pong``), or ``gym:`` and a Gymnasium id.
        num_envs: how many.
        run_seed: every episode's seed derives from it.
        protocol: ``paper``, ``sticky`` or a `Protocol`: sticky actions and no-op starts on Atari;
            other tasks have neither.
        num_threads: C++ threads of the emulators; other tasks run in the caller's thread.
        with_picture: make `VectorEnv.picture` available.

    Raises:
        UsageError: if there is no such task or protocol, or its spaces are not supported.
        UnavailableError: if it is an Atari game and ale-py is not installed.
    """
    if isinstance(protocol, str):
        protocol = protocol_named(protocol)
    if not is_atari(task):
        return GymnasiumEnvs(task, num_envs=num_envs, run_seed=run_seed, with_picture=with_picture)
    return AtariEnvs(
        task,
        num_envs=num_envs,
        num_threads=num_threads,
        run_seed=run_seed,
        repeat_action_probability=protocol.repeat_action_probability,
        max_noops=protocol.max_noops,
        with_picture=with_picture,
    )


def describe_task(task: str) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Shape of one observation of a task, stacked where it is an image, and names of its actions.

    Raises:
        UsageError, UnavailableError: as `make_envs`.
    """
    env = make_envs(task, num_envs=1, run_seed=0)
    try:
        return observation_shape(env), env.action_names
    finally:
        env.close()
