"""Records in the words of others: the tags that Stable-Baselines3 and CleanRL have made known.

The one table from our names to those tags. ``progress.csv``, TensorBoard's event files and Weights
& Biases have the tags, ``records.jsonl`` has our names; the x axis is agent steps in all of them.

Names of values are ``NAME``, or ``TASK/NAME`` of one task. What the table does not know keeps its
name: under ``train/``, ``eval/`` or ``final/``, or under ``task/SLUG/``. Scores of different games
have no mean, so a run of several tasks has them under ``task/SLUG/`` alone.
"""

import re
from collections.abc import Iterator

from actor_mimic.storage.records import Record

STEPS = "time/total_timesteps"
UPDATES = "train/n_updates"
SECONDS = "time/time_elapsed"

# Of the whole run.
RUN_TAGS = {
    "loss": ("train/loss",),
    "q_value": ("losses/q_values",),
    "learning_rate": ("train/learning_rate",),
    "epsilon": ("rollout/exploration_rate",),
    "episodes": ("time/episodes",),
    "steps_per_s": ("time/fps", "charts/SPS"),
    "updates_per_s": ("time/updates_per_s",),
}
# Beside them, where the loss is that of Q-learning.
Q_LEARNING_TAGS = {"loss": ("losses/td_loss",)}
# Of a run with one task; every run has them as task/SLUG/NAME too.
ONLY_TASK_TAGS = {
    "train/score": ("rollout/ep_rew_mean", "charts/episodic_return"),
    "train/length": ("rollout/ep_len_mean", "charts/episodic_length"),
    "eval/mean": ("eval/mean_reward",),
    "eval/mean_steps": ("eval/mean_ep_length",),
    "final/mean": ("final/mean_reward",),
    "final/mean_steps": ("final/mean_ep_length",),
}
# Means over the tasks.
MEAN_TAGS = {
    "policy_loss": "distill/policy_loss",
    "feature_loss": "distill/feature_loss",
    "divergence": "distill/kl",
    "agreement": "distill/agreement",
}
# What follows task/SLUG/.
TASK_NAMES = {
    "train/score": "ep_rew_mean",
    "train/length": "ep_len_mean",
    "train/divergence": "kl",
    "eval/mean": "eval_mean_reward",
    "eval/mean_steps": "eval_mean_ep_length",
    "final/mean": "final_mean_reward",
    "final/mean_steps": "final_mean_ep_length",
}

_GROUPS = {"train": "train", "evaluation": "eval", "final": "final"}
_UNUSUAL = re.compile(r"[^A-Za-z0-9._-]+")


def named_values(record: Record) -> dict[str, float]:
    """The numbers of a record by their tags; empty for a record that nobody plots.

    Every tag is letters, digits and ``._-/``, and begins with a letter, whatever a task is called.
    """
    group = _GROUPS.get(record.kind)
    if group is None:
        return {}
    values: dict[str, float] = {}
    if group == "train":
        values |= {UPDATES: float(record.update), SECONDS: round(record.wall_s, 3)}
    means: dict[str, list[float]] = {}
    only_task = len({task for task, _, _ in _numbers(record)} - {""}) == 1
    for task, name, value in _numbers(record):
        known = f"{group}/{name}"
        if not task:
            tags = RUN_TAGS.get(name, (f"{group}/{_plain(name)}",))
            if "q_value" in record.values:
                tags += Q_LEARNING_TAGS.get(name, ())
        else:
            mine = TASK_NAMES.get(known, name if group == "train" else f"{group}_{name}")
            tags = (f"task/{_plain(task)}/{_plain(mine)}",)
            if only_task:
                tags += ONLY_TASK_TAGS.get(known, ())
            if group == "train" and name in MEAN_TAGS:
                means.setdefault(MEAN_TAGS[name], []).append(value)
        values |= dict.fromkeys(tags, value)
    return values | {tag: sum(parts) / len(parts) for tag, parts in means.items()}


def _numbers(record: Record) -> Iterator[tuple[str, str, float]]:
    """Task (or nothing), name and value."""
    for key, value in record.values.items():
        task, _, name = key.rpartition("/")
        if isinstance(value, int | float):
            yield task, name, float(value)


def _plain(name: str) -> str:
    return _UNUSUAL.sub("-", name).strip("-.")[:100] or "unnamed"
