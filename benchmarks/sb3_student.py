"""Three DQN agents of Stable-Baselines3, imported and distilled into one student.

    python -m benchmarks.sb3_student [--agents DIR] [--seeds N] [--episodes N] [--output FILE]

CartPole, Acrobot and MountainCar: observations of 4, 6 and 2 numbers, 2, 3 and 3 actions. The
agents are trained by Stable-Baselines3 itself, with the settings of RL Baselines3 Zoo for each, and
kept in DIR, where the next call finds them. Then come, seed by seed, the commands of a user::

    actor-mimic distill gym:CartPole-v1=cartpole.zip gym:Acrobot-v1=... gym:MountainCar-v0=...
    actor-mimic evaluate STUDENT --episodes 100

and each agent is played as many games as the student, of the same seeds, under the same protocol.
Targets: each distillation takes at most 4 minutes, and in no task does a student fall short of its
teacher by more than 5 % of the teacher's absolute mean.

Then a task is added later: a student of the first two teaches those to a new student, which learns
the third from its own teacher. Target: the new one falls short of the old one by at most 10 %.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import gymnasium

from benchmarks.machine import facts
from benchmarks.processes import ROOT
from benchmarks.summary import Verdict, print_verdicts

WIDE = {"net_arch": [256, 256]}
# RL Baselines3 Zoo, hyperparams/dqn.yml.
AGENTS: dict[str, dict[str, Any]] = {
    "CartPole-v1": {
        "total_timesteps": 50_000,
        "learning_rate": 2.3e-3,
        "batch_size": 64,
        "buffer_size": 100_000,
        "learning_starts": 1_000,
        "gamma": 0.99,
        "target_update_interval": 10,
        "train_freq": 256,
        "gradient_steps": 128,
        "exploration_fraction": 0.16,
        "exploration_final_eps": 0.04,
    },
    "Acrobot-v1": {
        "total_timesteps": 100_000,
        "learning_rate": 6.3e-4,
        "batch_size": 128,
        "buffer_size": 50_000,
        "learning_starts": 0,
        "gamma": 0.99,
        "target_update_interval": 250,
        "train_freq": 4,
        "gradient_steps": -1,
        "exploration_fraction": 0.12,
        "exploration_final_eps": 0.1,
    },
    "MountainCar-v0": {
        "total_timesteps": 120_000,
        "learning_rate": 4e-3,
        "batch_size": 128,
        "buffer_size": 10_000,
        "learning_starts": 1_000,
        "gamma": 0.98,
        "target_update_interval": 600,
        "train_freq": 16,
        "gradient_steps": 8,
        "exploration_fraction": 0.2,
        "exploration_final_eps": 0.07,
    },
}
LEAST_MEAN = {"CartPole-v1": 450.0, "Acrobot-v1": -120.0, "MountainCar-v0": -130.0}
AGENT_SEEDS = 5  # to be tried
MOST_SECONDS = 240.0
MOST_SHORTFALL = 0.05  # of the teacher's absolute mean
MOST_FORGOTTEN = 0.1  # of the old student's


def train_agent(env_id: str, path: Path) -> None:
    """Trains an agent with Stable-Baselines3 and saves it as its users do.

    The first seed that plays well counts: DQN forgets now and then, and what an agent worse than
    random play teaches says nothing of the student.

    Raises:
        RuntimeError: if none does.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from stable_baselines3 import DQN
        from stable_baselines3.common.evaluation import evaluate_policy

    settings = dict(AGENTS[env_id])
    total = settings.pop("total_timesteps")
    for seed in range(AGENT_SEEDS):
        env = gymnasium.make(env_id)
        agent = DQN("MlpPolicy", env, seed=seed, device="cpu", policy_kwargs=WIDE, **settings)
        agent.learn(total)
        mean, _ = evaluate_policy(agent, gymnasium.make(env_id), n_eval_episodes=20, warn=False)
        print(f"{env_id}, seed {seed}: {mean:.1f}", file=sys.stderr, flush=True)
        if mean >= LEAST_MEAN[env_id]:
            agent.save(path)
            return
    raise RuntimeError(f"no seed of {AGENT_SEEDS} comes to {LEAST_MEAN[env_id]} on {env_id}")


def call(*arguments: str) -> tuple[dict[str, Any], float]:
    """What ``actor-mimic ARGUMENTS --json`` printed, and the seconds that it took.

    Raises:
        CalledProcessError: if it failed; it has said why on standard error.
    """
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "actor_mimic", *arguments, "--json"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return json.loads(done.stdout), time.perf_counter() - started


def shortfall(teacher_mean: float, student_mean: float) -> float:
    """How much less the student scores, as a share of the teacher's absolute mean; 0 if no less."""
    return max(0.0, teacher_mean - student_mean) / abs(teacher_mean)


def measure(agents: Path, seeds: int, episodes: int, scratch: Path) -> dict[str, Any]:
    """Trains what is missing, distils with every seed, and plays everyone."""
    agents.mkdir(parents=True, exist_ok=True)
    teachers = {f"gym:{env_id}": agents / f"{env_id}.zip" for env_id in AGENTS}
    for env_id in AGENTS:
        path = teachers[f"gym:{env_id}"]
        if not path.exists():
            print(f"Stable-Baselines3 trains {env_id} ...", file=sys.stderr, flush=True)
            train_agent(env_id, path)
    pairs = [f"{task}={path.resolve()}" for task, path in teachers.items()]
    games = ["--episodes", str(episodes)]
    scores: dict[str, dict[str, Any]] = {"teacher": {}}
    seconds = []
    for seed in range(seeds):
        name = f"student, seed {seed}"
        student = str(scratch / f"student-{seed}")
        seconds.append(call("distill", *pairs, "--seed", str(seed), "--run-dir", student)[1])
        scores[name] = call("evaluate", student, *games)[0]["tasks"]
    for number, (task, path) in enumerate(teachers.items()):
        imported = str(scratch / f"import-{number}")
        call("import", str(path), "--task", task, "-o", imported)
        scores["teacher"] |= call("evaluate", imported, *games)[0]["tasks"]
    *first, last = pairs
    old, new = scratch / "old", scratch / "new"
    call("distill", *first, "--run-dir", str(old))
    old_tasks = [pair.partition("=")[0] for pair in first]
    call("distill", *(f"{task}={old}" for task in old_tasks), last, "--run-dir", str(new))
    for name, run in (("old", old), ("new", new)):
        scores[name] = call("evaluate", str(run), *games)[0]["tasks"]
    return {"distill_s": seconds, "scores": scores}


def verdicts(found: dict[str, Any]) -> list[Verdict]:
    """Time, the shortfall in every task, and what was forgotten when one was added."""
    scores = found["scores"]
    longest = max(found["distill_s"])
    result = [Verdict("distillation, seconds in all", "at most", MOST_SECONDS, longest)]
    students = [name for name in scores if name.startswith("student")]
    pairs = [("teacher", name, f"shortfall of {name}", MOST_SHORTFALL) for name in students]
    for before, after, what, most in [*pairs, ("old", "new", "forgotten", MOST_FORGOTTEN)]:
        for task, one in scores[before].items():
            measured = shortfall(one["mean"], scores[after][task]["mean"])
            result.append(Verdict(f"{task}: {what}", "at most", most, measured))
    return result


def _cell(scores: dict[str, Any] | None) -> str:
    if scores is None:
        return "-"
    low, high = scores["ci95"]
    return f"{scores['mean']:.1f} [{low:.1f}, {high:.1f}]"


def main(arguments: list[str] | None = None) -> int:
    """Prints scores and verdicts; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description="SB3's agents into one student.")
    parser.add_argument("--agents", type=Path, default=ROOT / "runs" / "sb3-agents")
    parser.add_argument("--seeds", type=int, default=3, help="students to make (3)")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--output", type=Path, help="write everything to this file, as JSON")
    options = parser.parse_args(arguments)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(options.agents, options.seeds, options.episodes, Path(scratch))
    print(f"{'mean of ' + str(options.episodes) + ' games':20}", end="")
    print("".join(f"{name:>26}" for name in found["scores"]))
    for task in found["scores"]["teacher"]:
        cells = [_cell(scores.get(task)) for scores in found["scores"].values()]
        print(f"{task:20}{''.join(f'{cell:>26}' for cell in cells)}")
    outcome = verdicts(found)
    print_verdicts(outcome)
    if options.output:
        content = facts("benchmarks.sb3_student") | found
        options.output.write_text(json.dumps(content, indent=1) + "\n")
    return 0 if all(verdict.passed for verdict in outcome) else 1


if __name__ == "__main__":
    sys.exit(main())
