"""The two evaluation protocols, named and stamped into every result.

Both play the minimal action set, press FIRE at reset where the game has it, cut an episode after
108,000 frames and report raw scores. They differ in where the randomness comes from.
"""

from dataclasses import dataclass

from actor_mimic.errors import UsageError, did_you_mean

FRAME_SKIP = 4
FRAMES_PER_S = 60  # of an Atari console
MAX_EPISODE_FRAMES = 108_000


@dataclass(frozen=True)
class Protocol:
    """How episodes start, how noisy they are, and what ends a training episode."""

    name: str
    repeat_action_probability: float
    max_noops: int
    life_loss_ends_training_episodes: bool
    evaluation_epsilon: float


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        # Mnih et al. (2015) and Parisotto et al. (2016).
        Protocol(
            "paper",
            repeat_action_probability=0.0,
            max_noops=30,
            life_loss_ends_training_episodes=True,
            evaluation_epsilon=0.05,
        ),
        # Machado et al. (2018), arXiv:1709.06009. They evaluate on training episodes; the
        # epsilon is Dopamine's training value.
        Protocol(
            "sticky",
            repeat_action_probability=0.25,
            max_noops=0,
            life_loss_ends_training_episodes=False,
            evaluation_epsilon=0.01,
        ),
    )
}


def protocol_named(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        UsageError: if there is none.
    """
    try:
        return PROTOCOLS[name]
    except KeyError:
        raise UsageError(
            f"unknown protocol {name!r}, expected one of {', '.join(PROTOCOLS)}"
            f"{did_you_mean(name, PROTOCOLS)}"
        ) from None
