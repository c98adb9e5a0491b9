"""The Atari games that scores are compared on, and the sets of games that the paper uses.

A game is named by its ALE ROM id. Scores are raw points per episode, with no-op starts.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class GameScores:
    """Points per episode of the two players that every agent is measured against."""

    random: float
    human: float


# The 57 games of the Arcade Learning Environment benchmark, no-op starts.
# Source: google-deepmind/dqn_zoo, dqn_zoo/atari_data.py (Apache-2.0).
GAMES: dict[str, GameScores] = {
    "alien": GameScores(random=227.8, human=7127.7),
    "amidar": GameScores(random=5.8, human=1719.5),
    "assault": GameScores(random=222.4, human=742.0),
    "asterix": GameScores(random=210.0, human=8503.3),
    "asteroids": GameScores(random=719.1, human=47388.7),
    "atlantis": GameScores(random=12850.0, human=29028.1),
    "bank_heist": GameScores(random=14.2, human=753.1),
    "battle_zone": GameScores(random=2360.0, human=37187.5),
    "beam_rider": GameScores(random=363.9, human=16926.5),
    "berzerk": GameScores(random=123.7, human=2630.4),
    "bowling": GameScores(random=23.1, human=160.7),
    "boxing": GameScores(random=0.1, human=12.1),
    "breakout": GameScores(random=1.7, human=30.5),
    "centipede": GameScores(random=2090.9, human=12017.0),
    "chopper_command": GameScores(random=811.0, human=7387.8),
    "crazy_climber": GameScores(random=10780.5, human=35829.4),
    "defender": GameScores(random=2874.5, human=18688.9),
    "demon_attack": GameScores(random=152.1, human=1971.0),
    "double_dunk": GameScores(random=-18.6, human=-16.4),
    "enduro": GameScores(random=0.0, human=860.5),
    "fishing_derby": GameScores(random=-91.7, human=-38.7),
    "freeway": GameScores(random=0.0, human=29.6),
    "frostbite": GameScores(random=65.2, human=4334.7),
    "gopher": GameScores(random=257.6, human=2412.5),
    "gravitar": GameScores(random=173.0, human=3351.4),
    "hero": GameScores(random=1027.0, human=30826.4),
    "ice_hockey": GameScores(random=-11.2, human=0.9),
    "jamesbond": GameScores(random=29.0, human=302.8),
    "kangaroo": GameScores(random=52.0, human=3035.0),
    "krull": GameScores(random=1598.0, human=2665.5),
    "kung_fu_master": GameScores(random=258.5, human=22736.3),
    "montezuma_revenge": GameScores(random=0.0, human=4753.3),
    "ms_pacman": GameScores(random=307.3, human=6951.6),
    "name_this_game": GameScores(random=2292.3, human=8049.0),
    "phoenix": GameScores(random=761.4, human=7242.6),
    "pitfall": GameScores(random=-229.4, human=6463.7),
    "pong": GameScores(random=-20.7, human=14.6),
    "private_eye": GameScores(random=24.9, human=69571.3),
    "qbert": GameScores(random=163.9, human=13455.0),
    "riverraid": GameScores(random=1338.5, human=17118.0),
    "road_runner": GameScores(random=11.5, human=7845.0),
    "robotank": GameScores(random=2.2, human=11.9),
    "seaquest": GameScores(random=68.4, human=42054.7),
    "skiing": GameScores(random=-17098.1, human=-4336.9),
    "solaris": GameScores(random=1236.3, human=12326.7),
    "space_invaders": GameScores(random=148.0, human=1668.7),
    "star_gunner": GameScores(random=664.0, human=10250.0),
    "surround": GameScores(random=-10.0, human=6.5),
    "tennis": GameScores(random=-23.8, human=-8.3),
    "time_pilot": GameScores(random=3568.0, human=5229.2),
    "tutankham": GameScores(random=11.4, human=167.6),
    "up_n_down": GameScores(random=533.4, human=11693.2),
    "venture": GameScores(random=0.0, human=1187.5),
    "video_pinball": GameScores(random=16256.9, human=17667.9),
    "wizard_of_wor": GameScores(random=563.5, human=4756.5),
    "yars_revenge": GameScores(random=3092.9, human=54576.9),
    "zaxxon": GameScores(random=32.5, human=9173.3),
}

# The eight games that one network learns to play, the paper's section 5.1; corroborated by the
# default set of cunningham-lab/cb_and_cc, cc/icbinb/rl/train_amn.py.
MULTITASK_GAMES = (
    "atlantis",
    "boxing",
    "breakout",
    "crazy_climber",
    "enduro",
    "pong",
    "seaquest",
    "space_invaders",
)

# The thirteen games that a student learns before it is transferred, from the authors' code
# (eparisotto/ActorMimic, scripts/run_amn_*_paper).
TRANSFER_SOURCE_GAMES = (
    "assault",
    "atlantis",
    "beam_rider",
    "boxing",
    "crazy_climber",
    "demon_attack",
    "enduro",
    "fishing_derby",
    "kangaroo",
    "name_this_game",
    "pong",
    "seaquest",
    "space_invaders",
)

# The seven games that it is transferred to. This set is recalled, not read in the paper; the
# README of the authors' code confirms breakout, star_gunner and video_pinball.
TRANSFER_TARGET_GAMES = (
    "breakout",
    "gopher",
    "krull",
    "road_runner",
    "robotank",
    "star_gunner",
    "video_pinball",
)


def human_normalised(task: str, score: float) -> float | None:
    """Place a raw score between random play (0) and a human player (1).

    Source: Mnih et al. (2015), doi:10.1038/nature14236, there in per cent.

    Args:
        task: a game, or any other task such as ``gym:CartPole-v1``.
        score: mean raw points per episode; may lie below random or above human play.

    Returns:
        ``(score - random) / (human - random)``, or None where no human score is known.

    Example:
        >>> human_normalised("breakout", 30.5)
        1.0
    """
    reference = GAMES.get(task)
    if reference is None:
        return None
    return (score - reference.random) / (reference.human - reference.random)
