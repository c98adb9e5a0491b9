"""Two agents of Stable-Baselines3 into one student, which plays both of their tasks.

Agents are read from `agents/TASK.zip`; those that are not there are trained first.
"""

import argparse
from pathlib import Path

import gymnasium
from stable_baselines3 import DQN

import actor_mimic

TASKS = ("CartPole-v1", "Acrobot-v1")


def main() -> None:
    """Reads or trains the agents, then distils them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=Path, default=Path("agents"))
    parser.add_argument("--agent-steps", type=int, default=50_000)
    parser.add_argument("--student-steps", type=int, default=50_000, help="of each task")
    options = parser.parse_args()
    options.agents.mkdir(exist_ok=True)

    teachers = {}
    for task in TASKS:
        path = options.agents / f"{task}.zip"
        if not path.exists():
            agent = DQN("MlpPolicy", gymnasium.make(task), learning_rate=1e-3, seed=0)
            agent.learn(options.agent_steps)
            agent.save(path)
        teachers[f"gym:{task}"] = path

    # The zips are read as tensors and never unpickled; each agent is measured before it teaches.
    student = actor_mimic.distill(
        teachers, "runs/student-of-sb3", steps_per_task=options.student_steps
    )
    print("one network plays", ", ".join(student.tasks))


if __name__ == "__main__":
    main()
