"""Three DQN agents of Stable-Baselines3, imported and distilled into one student.

    python -m benchmarks.sb3_student [--agents DIR] [--output FILE]

CartPole, Acrobot and MountainCar: observations of 4, 6 and 2 numbers, 2, 3 and 3 actions. The
agents are trained by Stable-Baselines3 itself, with the settings of RL Baselines3 Zoo for each, and
kept in DIR, where the next call finds them. Then come the very commands of a user::

    actor-mimic distill gym:CartPole-v1=cartpole.zip gym:Acrobot-v1=... gym:MountainCar-v0=...
    actor-mimic evaluate STUDENT --episodes 100

and each agent is played as many games as the student, of the same seeds, under the same protocol.
Targets: distillation takes at most 4 minutes, and in no task does the student fall short of its
teacher by more than 5 % of the teacher's absolute mean.
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
MOST_SECONDS = 240.0
MOST_SHORTFALL = 0.05  # of the teacher's absolute mean


def train_agent(env_id: str, path: Path) -> None:
    """Trains an agent with Stable-Baselines3 and saves it as its users do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from stable_baselines3 import DQN

    settings = dict(AGENTS[env_id])
    total = settings.pop("total_timesteps")
    env = gymnasium.make(env_id)
    agent = DQN("MlpPolicy", env, seed=0, device="cpu", policy_kwargs=WIDE, **settings)
    agent.learn(total)
    agent.save(path)
    env.close()


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


def measure(agents: Path, episodes: int, scratch: Path) -> dict[str, Any]:
    """Trains what is missing, distils, and plays everyone."""
    agents.mkdir(parents=True, exist_ok=True)
    teachers = {f"gym:{env_id}": agents / f"{env_id}.zip" for env_id in AGENTS}
    for env_id in AGENTS:
        path = teachers[f"gym:{env_id}"]
        if not path.exists():
            print(f"Stable-Baselines3 trains {env_id} ...", file=sys.stderr, flush=True)
            train_agent(env_id, path)
    student = scratch / "student"
    pairs = [f"{task}={path.resolve()}" for task, path in teachers.items()]
    _, seconds = call("distill", *pairs, "--run-dir", str(student))
    games = ["--episodes", str(episodes)]
    scores = {"student": call("evaluate", str(student), *games)[0]["tasks"], "teacher": {}}
    for number, (task, path) in enumerate(teachers.items()):
        imported = str(scratch / f"import-{number}")
        call("import", str(path), "--task", task, "-o", imported)
        scores["teacher"] |= call("evaluate", imported, *games)[0]["tasks"]
    return {"distill_s": seconds, "scores": scores}


def verdicts(found: dict[str, Any]) -> list[Verdict]:
    """Time, and the shortfall in every task."""
    teachers, students = found["scores"]["teacher"], found["scores"]["student"]
    return [
        Verdict("distillation, seconds in all", "at most", MOST_SECONDS, found["distill_s"]),
        *(
            Verdict(
                f"{task}: shortfall",
                "at most",
                MOST_SHORTFALL,
                shortfall(teachers[task]["mean"], students[task]["mean"]),
            )
            for task in teachers
        ),
    ]


def main(arguments: list[str] | None = None) -> int:
    """Prints scores and verdicts; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description="SB3's agents into one student.")
    parser.add_argument("--agents", type=Path, default=ROOT / "runs" / "sb3-agents")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--output", type=Path, help="write everything to this file, as JSON")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(options.agents, options.episodes, Path(scratch))
    print(f"{'mean of ' + str(options.episodes) + ' games':24}{'teacher':>26}{'student':>26}")
    for task, teacher in found["scores"]["teacher"].items():
        cells = [
            f"{one['mean']:.1f} [{one['ci95'][0]:.1f}, {one['ci95'][1]:.1f}]"
            for one in (teacher, found["scores"]["student"][task])
        ]
        print(f"{task:24}{cells[0]:>26}{cells[1]:>26}")
    outcome = verdicts(found)
    print_verdicts(outcome)
    if options.output:
        content = facts("benchmarks.sb3_student") | found
        options.output.write_text(json.dumps(content, indent=1) + "\n")
    return 0 if all(verdict.passed for verdict in outcome) else 1


if __name__ == "__main__":
    sys.exit(main())
