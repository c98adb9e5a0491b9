"""Quantiles of the return, through the whole loop: a coin that is thrown, and the step before it.

Each test names the mutants of the code that it was seen to kill.
"""

import pytest
import torch
from probes import Move, ProbeEnvs, dqn, learn

# State 1 ends with -1 or +1. Where quantile q of four stands, (2 q + 1) / 8 of the pull upwards is
# as strong as the rest of the pull downwards; a pull is as long as the distance, and at most 1:
#     1/8 x 1 = 7/8 d and 3/8 x 1 = 5/8 d, d being the distance from -1.
COIN = [-6 / 7, -2 / 5, 2 / 5, 6 / 7]
# State 0 leads there, and gamma is 1/2. All distances are below 1 now. With the halves of the
# above, -3/7, -1/5, 1/5 and 3/7, to the left and to the right:
#     1/8 (3/7 - 3 x) = 7/8 (x + 3/7)            x = -9/35
#     3/8 (1/5 + 3/7 - 2 x) = 5/8 (2 x + 22/35)  x = -11/140
BEFORE = [-9 / 35, -11 / 140, 11 / 140, 9 / 35]


@pytest.mark.parametrize("double", [False, True])
def test_quantiles_are_where_the_pulls_balance(double: bool) -> None:
    """Kills: a network of one output for each action; tau counted from above, or as (i + 1) / 5;
    pulls towards the mean of the targets; no bootstrap, or one that is not discounted.
    """
    env = ProbeEnvs(
        [[Move(1)] * 2, [Move(0, 0.0, "terminated")] * 2],
        noise={1: 1.0},
        in_turn=True,
        starts=(0, 1),
    )
    learner = dqn(
        num_quantiles=4,
        double=double,
        learning_rate=5e-3,
        batch_size=256,
        replay_capacity_steps=10_000,
    )
    state = learn(env, learner, steps=8_000)

    with torch.no_grad():
        found = state.network.quantiles(torch.from_numpy(env.frames))
    expected = torch.tensor([BEFORE, COIN])[:, None].expand_as(found)
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0.0)
