"""Films of games: pictures that the player saw, the score of the same evaluation."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from plain_atari import PlainAtari, shrink

from actor_mimic.compute import Workers
from actor_mimic.envs.atari import atari_action_names
from actor_mimic.errors import DataError, Interrupted
from actor_mimic.networks.q_network import Output
from actor_mimic.protocols import PROTOCOLS
from actor_mimic.report.film_panel import LARGE, SMALL, Panel
from actor_mimic.seeding import derive_seed
from actor_mimic.stages import films
from actor_mimic.stages.evaluate import play_games
from actor_mimic.stages.films import Player, Rules, policy_of, record_film, watch
from actor_mimic.stages.players import player_of
from actor_mimic.teachers.teacher import Teacher

SEED = 3
HOLD = 15  # pictures of the last second


def player(task="breakout", *, who="student", weights=0, logits=False, temperature=0.5, seen=None):
    """Scores that depend on every pixel, and a little on the seed of the weights."""
    names = atari_action_names(task)
    rng = torch.Generator().manual_seed(weights)
    matrix = torch.randn(4 * 84 * 84, len(names), generator=rng) / 2_000

    def network(obs):
        if seen is not None:
            seen.append(obs[0].clone())
        return Output(obs.flatten(1).float() @ matrix, torch.zeros(len(obs), 1))

    teacher = Teacher(task, names, (4, 84, 84), 1, f"{weights:064}", network, "cpu", logits)
    return Player(who, teacher, temperature)


def rules(max_steps=12, *, protocol="paper", epsilon=0.1):
    return Rules(PROTOCOLS[protocol], epsilon, SEED, max_steps)


class Reel:
    """In place of the files: what was written, and which shots the panels drew for it."""

    def __init__(self, monkeypatch):
        self.pictures, self.shots, self.sizes, self.rates = [], [], [], []
        self.panels = []
        reel, draw = self, Panel.draw

        class File:
            def __init__(self, _, **settings):
                reel.sizes.append(settings["size"])
                reel.rates.append(settings["pictures_per_s"])
                self.write = reel.pictures.append

            def __enter__(self):
                return self

            def __exit__(self, *_):
                pass

        def noting(panel, canvas, shot):
            draw(panel, canvas, shot)
            reel.shots.append(shot)
            reel.panels.append((panel, canvas.copy()))

        monkeypatch.setattr(films, "FilmFile", File)
        monkeypatch.setattr(Panel, "draw", noting)


@pytest.fixture
def reel(monkeypatch):
    return Reel(monkeypatch)


def run(players, how):
    return list(record_film(players, [Path("x.mp4")], how))[-1]


def test_every_picture_is_one_that_the_player_saw(reel):
    """Against one emulator that plays the film's actions, frame by frame."""
    seen = []
    (played,) = run([player(seen=seen, weights=4)], rules(2_000, protocol="sticky", epsilon=0.3))

    plain = PlainAtari("ALE/Breakout-v5", repeat_action_probability=0.25)
    grey = plain.reset(derive_seed(derive_seed(SEED, "evaluation"), "breakout", 0, 0))
    score, random_actions, over = 0.0, 0, False
    for step, obs in enumerate(seen):
        assert not over
        # One step of grey, and the same instant in colour, twice as large under the head.
        assert np.abs(shrink(grey) - obs[-1].numpy()).max() <= 1.0
        film = reel.pictures[step][8 + LARGE.head :, 8:][: 2 * 210, : 2 * 160]
        assert np.array_equal(film, plain.picture.repeat(2, axis=0).repeat(2, axis=1))
        shot = reel.shots[step]
        assert (shot.score, shot.step, shot.over) == (score, step, False)
        assert shot.policy.sum() == pytest.approx(1.0, abs=1e-12)
        random_actions += shot.chosen != shot.policy.argmax()
        grey, reward, over, cut, _ = plain.step(shot.chosen)
        score += reward
        assert not cut
    assert over
    assert (played.score, played.steps, played.over) == (score, len(seen), True)
    assert len(reel.pictures) == len(seen) + HOLD
    # The last one stays, darker, with the score of the whole game.
    (end,) = reel.shots[len(seen) :]
    assert (end.score, end.step, end.over) == (score, len(seen), True)
    assert all(np.array_equal(picture, reel.pictures[-1]) for picture in reel.pictures[-HOLD:])
    assert not np.array_equal(reel.pictures[-HOLD - 1], reel.pictures[-HOLD])
    assert score > 0
    assert 0.05 < random_actions / len(seen) < 0.45
    assert reel.rates == [15.0]


@pytest.mark.usefixtures("reel")
def test_the_score_is_that_of_the_same_evaluation():
    how, in_film, in_evaluation = rules(2_000, epsilon=0.3), [], []
    one = player(weights=4, seen=in_film)
    (played,) = run([one], how)

    *_, last = play_games(
        player_of([player(weights=4, seen=in_evaluation).teacher], Workers()),
        ["breakout"],
        episodes=1,
        protocol=how.protocol,
        epsilon=how.epsilon,
        seed=SEED,
        num_threads=1,
    )

    assert played.over
    assert (played.score,) == last["breakout"].scores
    assert played.score > 0
    # Not the score alone: the same game, step by step.
    assert len(in_film) == len(in_evaluation) == played.steps
    assert all(map(torch.equal, in_film, in_evaluation))


def test_beside_each_other_they_play_the_same_game(reel):
    run([player(who="student"), player(who="twin")], rules(25, epsilon=0.5))

    for one, other in zip(reel.shots[::2], reel.shots[1::2], strict=True):
        assert np.array_equal(one.picture, other.picture)
        assert (one.chosen, one.score, one.step) == (other.chosen, other.score, other.step)
    assert reel.sizes == [(2 * (320 + 16), 56 + 420 + 8 + 2 * 28 + 16 - 4)]


def test_others_begin_in_the_same_state_and_go_their_way(reel):
    played = run([player(), player(who="expert", weights=5)], rules(25))

    first, second = reel.shots[:2]
    assert np.array_equal(first.picture, second.picture)
    assert not np.array_equal(first.policy, second.policy)
    assert not np.array_equal(reel.shots[40].picture, reel.shots[41].picture)
    assert [(one.who, one.model_sha256) for one in played] == [
        ("student", f"{0:064}"),
        ("expert", f"{5:064}"),
    ]


def test_a_grid_shows_every_game(reel):
    games = ["pong", "boxing", "breakout"]

    played = run([player(game) for game in games], rules(3))

    assert [one.task for one in played] == games
    assert [(one.steps, one.over) for one in played] == [(3, False)] * 3
    # Two columns; boxing has 18 actions, the cells are alike all the same.
    height = SMALL.head + 210 + 8 + 28 + 16
    assert reel.sizes == [(2 * (160 + 16), 2 * height)]
    last = reel.pictures[-1]
    for index, (_, canvas) in enumerate(reel.panels[-3:]):
        row, column = divmod(index, 2)
        top, left = row * height + 8, column * 176 + 8
        assert np.array_equal(last[top:, left:][: canvas.shape[0], : canvas.shape[1]], canvas)
        assert len(np.unique(canvas[SMALL.head : SMALL.head + 210].reshape(-1, 3), axis=0)) > 2


def test_a_game_that_goes_on_ends_with_its_score_so_far(reel):
    (played,) = run([player()], rules(4))

    assert (played.steps, played.over) == (4, False)
    assert len(reel.pictures) == 4 + HOLD
    assert [shot.step for shot in reel.shots] == [0, 1, 2, 3, 4]
    assert not any(shot.over for shot in reel.shots)


def test_a_policy_by_hand():
    """Values 0 and T log 3 are chances of 1 to 3; logits 0 and log 3 are, without a T."""
    scores = torch.tensor([0.0, 0.1 * np.log(3.0)])
    np.testing.assert_allclose(policy_of(scores, 0.1), [0.25, 0.75], atol=1e-6)
    assert policy_of(torch.tensor([9e3, -9e3, 0.0]), 0.01).tolist() == [1.0, 0.0, 0.0]


def test_logits_are_a_policy_without_a_temperature(reel):
    run([player(logits=True)], rules(1))
    run([player(temperature=1.0)], rules(1))

    assert np.array_equal(reel.shots[0].policy, reel.shots[-1].policy)


def test_a_film_that_is_closed_leaves_nothing(tmp_path):
    film = record_film([player()], [tmp_path / "a.mp4", tmp_path / "b.gif"], rules())
    next(film)
    next(film)
    assert len(list(tmp_path.iterdir())) == 2

    film.close()

    assert list(tmp_path.iterdir()) == []


def test_a_stop_is_heard_at_every_step(tmp_path):
    answers = iter([None, None, 15])
    shown, how = [], rules()
    film = record_film([player()], [tmp_path / "a.mp4"], how)
    watched = watch(film, how, stop=lambda: next(answers))

    with pytest.raises(Interrupted):
        shown.extend(record for record, _ in watched)

    assert [(record.kind, record.step) for record in shown] == [("film", 1), ("film", 2)]
    assert list(tmp_path.iterdir()) == []


def test_a_player_of_other_actions_is_refused(reel):
    wrong = player("boxing")
    wrong = dataclasses.replace(wrong, teacher=dataclasses.replace(wrong.teacher, task="pong"))

    with pytest.raises(DataError, match=r"student was made for the actions NOOP.*pong has NOOP"):
        run([wrong], rules())
    assert reel.pictures == []


def test_a_network_without_finite_scores_is_refused(reel):
    lost = player("pong")
    teacher = dataclasses.replace(
        lost.teacher, network=lambda obs: Output(torch.full((len(obs), 6), torch.nan), obs[:, 0, 0])
    )

    with pytest.raises(DataError, match="student: expected finite scores in pong"):
        run([dataclasses.replace(lost, teacher=teacher)], rules())
    assert reel.pictures == []
