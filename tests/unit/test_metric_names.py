"""The names that other tools know, worked out by hand for one record of each kind."""

import re

from actor_mimic.storage.metric_names import named_values
from actor_mimic.storage.records import Record

Q_LEARNING = Record(
    "train",
    step=2048,
    update=32,
    wall_s=4.25,
    values={
        "loss": 0.5,
        "q_value": 1.5,
        "epsilon": 0.9,
        "learning_rate": 1e-4,
        "pong/score": -20.0,
        "pong/length": 900.0,
        "episodes": 3,
        "steps_per_s": 512.0,
        "updates_per_s": 8.0,
    },
)


def test_a_record_of_q_learning_has_the_tags_of_both_libraries():
    assert named_values(Q_LEARNING) == {
        "train/n_updates": 32,
        "time/time_elapsed": 4.25,
        "train/loss": 0.5,
        "losses/td_loss": 0.5,
        "losses/q_values": 1.5,
        "rollout/exploration_rate": 0.9,
        "train/learning_rate": 1e-4,
        "task/pong/ep_rew_mean": -20.0,
        "rollout/ep_rew_mean": -20.0,
        "charts/episodic_return": -20.0,
        "task/pong/ep_len_mean": 900.0,
        "rollout/ep_len_mean": 900.0,
        "charts/episodic_length": 900.0,
        "time/episodes": 3,
        "time/fps": 512.0,
        "charts/SPS": 512.0,
        "time/updates_per_s": 8.0,
    }


def test_a_student_has_means_of_its_losses_and_none_of_its_scores():
    values = {
        "loss": 2.0,
        "pong/score": 10.0,
        "gym:Box/Two-v1/score": 30.0,
        "pong/policy_loss": 1.0,
        "gym:Box/Two-v1/policy_loss": 2.0,
        "pong/divergence": 0.25,
        "gym:Box/Two-v1/divergence": 0.75,
        "pong/feature_loss": 8.0,
        "gym:Box/Two-v1/feature_loss": 4.0,
        "pong/agreement": 0.5,
        "gym:Box/Two-v1/agreement": 1.0,
    }
    named = named_values(Record("train", 100, 5, values, 1.0))

    assert named == {
        "train/n_updates": 5,
        "time/time_elapsed": 1.0,
        "train/loss": 2.0,
        "task/pong/ep_rew_mean": 10.0,
        "task/gym-Box-Two-v1/ep_rew_mean": 30.0,
        "task/pong/policy_loss": 1.0,
        "task/gym-Box-Two-v1/policy_loss": 2.0,
        "distill/policy_loss": 1.5,
        "task/pong/kl": 0.25,
        "task/gym-Box-Two-v1/kl": 0.75,
        "distill/kl": 0.5,
        "task/pong/feature_loss": 8.0,
        "task/gym-Box-Two-v1/feature_loss": 4.0,
        "distill/feature_loss": 6.0,
        "task/pong/agreement": 0.5,
        "task/gym-Box-Two-v1/agreement": 1.0,
        "distill/agreement": 0.75,
    }


def test_evaluations_and_final_figures_are_told_apart():
    values = {"merit": 0.5, "pong/mean": 1.0, "pong/mean_steps": 700.0, "pong/stderr": None}
    evaluation = {
        "eval/merit": 0.5,
        "eval/mean_reward": 1.0,
        "eval/mean_ep_length": 700.0,
        "task/pong/eval_mean_reward": 1.0,
        "task/pong/eval_mean_ep_length": 700.0,
    }

    assert named_values(Record("evaluation", 8, 4, values, 1.0)) == evaluation
    final = {tag.replace("eval", "final"): value for tag, value in evaluation.items()}
    assert named_values(Record("final", 8, 4, values, 1.0)) == final


def test_what_nobody_plots_has_no_tags():
    assert named_values(Record("checkpoint", 8, 4, {"model_sha256": "ab"}, 1.0)) == {}
    assert named_values(Record("measure", 0, 0, {"pong/mean": 1.0}, 1.0)) == {}


def test_whatever_a_task_or_a_value_is_called_a_tag_is_plain():
    hostile = ["=cmd()", "-2+3", "@x", "\x1b[31m", "</script>", "a,b\n\r\t", "\u202e", '"', "", "."]
    values = {f"{name}/{other}": 1.0 for name in hostile for other in hostile}
    values |= {name: 1.0 for name in hostile if name}
    for kind in ("train", "evaluation", "final"):
        for tag in named_values(Record(kind, 1, 1, values, 1.0)):
            assert re.fullmatch(r"[a-z]+(/[A-Za-z0-9._-]+)+", tag), tag
