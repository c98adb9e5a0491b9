import numpy as np
import pytest
import torch

from actor_mimic.envs.make import make_envs
from actor_mimic.errors import Interrupted
from actor_mimic.protocols import PROTOCOLS
from actor_mimic.stages import evaluate
from actor_mimic.stages.evaluate import (
    TaskScores,
    act_randomly,
    episode_quotas,
    evaluation_json,
    expert_normalised,
    mean_score,
    play_games,
    summarise_scores,
)

CARTPOLE = "gym:CartPole-v1"


@pytest.mark.parametrize(
    ("episodes", "quotas"),
    [
        (30, [1] * 30),
        (32, [1] * 32),
        (33, [2] * 16 + [1]),
        (34, [2] * 17),
        (3, [1, 1, 1]),
        (1, [1]),
        (100, [4] * 25),
    ],
)
def test_every_environment_has_its_quota(episodes, quotas):
    assert episode_quotas(episodes) == quotas


def play(episodes, *, act=act_randomly, epsilon=1.0, seed=0):
    *counts, last = play_games(
        act,
        [CARTPOLE],
        episodes=episodes,
        protocol=PROTOCOLS["paper"],
        epsilon=epsilon,
        seed=seed,
        num_threads=1,
    )
    return [count[CARTPOLE] for count in counts], last[CARTPOLE]


def push_right(obs):
    return {task: np.ones(len(own), dtype=np.int64) for task, own in obs.items()}


def test_games_are_counted_and_the_seed_decides_them():
    counts, scores = play(11)

    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 10)
    assert len(scores.scores) == scores.episodes == 11
    assert scores == play(11)[1]
    assert scores != play(11, seed=1)[1]


def test_short_games_are_not_favoured():
    """Quota two each: pushing right falls in 8 to 11 steps, whoever is first."""
    _, scores = play(64, act=push_right, epsilon=0.0)

    assert all(8 <= score <= 11 for score in scores.scores)
    assert scores.episodes == 64


def test_tasks_are_played_beside_each_other_as_they_are_alone():
    tasks = [CARTPOLE, "gym:Acrobot-v1"]

    def played(tasks, asked):
        def act(obs):
            asked.append({task: len(own) for task, own in obs.items()})
            return {task: (own[:, 1] > 0).long().numpy() for task, own in obs.items()}

        *seen, last = play_games(
            act,
            tasks,
            episodes=3,
            protocol=PROTOCOLS["paper"],
            epsilon=0.2,
            seed=0,
            num_threads=1,
        )
        return seen, last

    asked: list[dict[str, int]] = []
    seen, together = played(tasks, asked)

    assert together == {task: played([task], [])[1][task] for task in tasks}
    assert seen[:2] == [dict.fromkeys(tasks, 0)] * 2  # while the emulators start
    seen = seen[2:]
    assert asked[0] == dict.fromkeys(tasks, 3)
    # Cart poles fall in some tens of steps, long before the first acrobot is done.
    cart = next(i for i, progress in enumerate(seen) if isinstance(progress[CARTPOLE], TaskScores))
    assert all(rows.keys() == {tasks[1]} for rows in asked[cart + 1 :])
    assert seen[cart] == {CARTPOLE: together[CARTPOLE], tasks[1]: 0}


def test_an_environment_that_does_not_close_hides_no_interrupt(monkeypatch):
    tasks, closed = [CARTPOLE, "gym:Acrobot-v1"], []

    def make(task, **options):
        env = make_envs(task, **options)

        def close():
            closed.append(task)
            raise OSError("it does not close")

        env.close = close
        return env

    monkeypatch.setattr(evaluate, "make_envs", make)
    games = play_games(
        push_right,
        tasks,
        episodes=2,
        protocol=PROTOCOLS["paper"],
        epsilon=0.0,
        seed=0,
        num_threads=1,
    )
    for _ in tasks:
        next(games)
    with pytest.raises(Interrupted):
        games.throw(Interrupted(15))
    assert sorted(closed) == sorted(tasks)


@pytest.mark.parametrize("how", ["closed", "failed", "failed to start", "done"])
def test_environments_are_closed_once_whatever_happens(how, monkeypatch):
    tasks, open_now = [CARTPOLE, "gym:Acrobot-v1"], []

    def make(task, **options):
        env = make_envs(task, **options)
        open_now.append(task)
        close = env.close

        def closed():
            open_now.remove(task)  # once
            close()

        def broken():
            raise ValueError("broken")

        env.close = closed
        if how == "failed to start" and task != CARTPOLE:
            env.reset = broken
        return env

    def act(obs):
        if how == "failed" and CARTPOLE not in obs:  # the other goes on
            raise ValueError("broken")
        return push_right(obs)

    monkeypatch.setattr(evaluate, "make_envs", make)
    games = play_games(
        act, tasks, episodes=2, protocol=PROTOCOLS["paper"], epsilon=0.0, seed=0, num_threads=1
    )
    if how == "closed":
        assert next(games) == dict.fromkeys(tasks, 0)
        assert open_now == [CARTPOLE]
        games.close()
    elif how == "done":
        for progress in games:
            playing = [task for task in tasks if not isinstance(progress[task], TaskScores)]
            assert set(open_now) <= set(playing)
    else:
        with pytest.raises(ValueError, match="broken"):
            list(games)
    assert open_now == []


def test_a_policy_is_asked_only_where_games_of_a_quota_go_on():
    """Environments 0 to 15 play two games each, the last one a single one."""
    asked = []

    def act(obs):
        asked.append(len(obs[CARTPOLE]))
        return push_right(obs)

    _, scores = play(33, act=act, epsilon=0.0)

    assert asked[:8] == [17] * 8  # nobody falls sooner
    assert asked == sorted(asked, reverse=True)
    assert asked[12:16] == [16] * 4  # all first games are over, no second one can be
    assert sum(asked) == sum(scores.scores)  # every step of every game that counts, and no other


def test_a_policy_sees_what_it_acts_on():
    """Pushing towards the side that the pole leans to holds it far longer than chance."""

    def balance(obs):
        leaning = obs[CARTPOLE][:, 2] + obs[CARTPOLE][:, 3] > 0
        return {CARTPOLE: leaning.to(torch.int64).numpy()}

    _, good = play(8, act=balance, epsilon=0.0)
    _, random = play(8)

    assert good.mean > 150 > 60 > random.mean


def test_summary_by_hand():
    scores = summarise_scores("pong", [-20.7, 14.6, -20.7, 14.6])

    assert scores.mean == pytest.approx(-3.05)
    assert scores.median == pytest.approx(-3.05)
    assert scores.human_normalised == pytest.approx(0.5)
    assert scores.stderr == pytest.approx(35.3 / 2 * (4 / 3) ** 0.5 / 2)
    assert scores.ci95 is not None
    assert scores.ci95[0] <= scores.mean <= scores.ci95[1]


def test_json_round_trip():
    scores = summarise_scores(CARTPOLE, [1.0, 2.0, 4.0])

    assert TaskScores.from_json(scores.to_json()) == scores
    shown = evaluation_json("random", PROTOCOLS["sticky"], 1.0, {CARTPOLE: scores})
    assert shown.keys() == {"checkpoint", "protocol", "epsilon", "tasks"}
    assert shown["protocol"] == "sticky"
    assert shown["tasks"][CARTPOLE]["human_normalised"] is None


def test_games_count_alike_where_all_have_a_human_score():
    """Breakout: random 1.7, human 30.5; Pong: random -20.7."""
    halfway = {"breakout": (1.7 + 30.5) / 2, "pong": -20.7}
    assert mean_score(halfway) == pytest.approx(0.25)
    assert mean_score({"breakout": 10.0, "gym:CartPole-v1": 500.0}) == 255.0


def test_expert_normalised_is_the_mean_of_ratios():
    ratio = expert_normalised(
        {"a": 5.0, "b": 0.0}, experts={"a": 10.0, "b": 4.0}, randoms={"a": 0.0, "b": -4.0}
    )

    assert ratio == pytest.approx((0.5 + 0.5) / 2)


def test_a_game_whose_expert_is_no_better_than_random_contributes_nothing():
    experts, randoms = {"a": 10.0, "b": -5.0, "c": 1.0}, {"a": 0.0, "b": -4.0, "c": 1.0}

    ratio = expert_normalised({"a": 6.0, "b": -9.0, "c": 3.0}, experts=experts, randoms=randoms)

    assert ratio == pytest.approx(0.6 / 3)
