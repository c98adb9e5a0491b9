"""A student, or any other checkpoint, in a loop of your own."""

import argparse

import gymnasium
import numpy as np

import actor_mimic

NUM_ENVS = 4


def main() -> None:
    """Plays one task for a number of steps and prints the scores of the finished games."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", help="a run, a checkpoint directory, or zoo:NAME")
    parser.add_argument("--task", help="may be left out where there is only one")
    parser.add_argument("--steps", type=int, default=10_000)
    options = parser.parse_args()

    player = actor_mimic.load(options.checkpoint)
    task = options.task or player.tasks[0]
    print(f"{options.checkpoint} plays {', '.join(player.tasks)}; now: {task}")
    if task.startswith("gym:"):
        envs = gymnasium.make_vec(task.removeprefix("gym:"), num_envs=NUM_ENVS)
    else:
        from ale_py import AtariVectorEnv

        envs = AtariVectorEnv(task, num_envs=NUM_ENVS, reward_clipping=False)

    obs, _ = envs.reset(seed=0)
    running, finished = np.zeros(NUM_ENVS), []
    for _ in range(options.steps // NUM_ENVS):
        # Raw observations of the task in, indices of the task's own actions out.
        obs, reward, terminated, truncated, _ = envs.step(player.act(obs, task))
        running += reward
        over = terminated | truncated
        finished += running[over].tolist()
        running[over] = 0.0
    envs.close()
    print(f"{len(finished)} games over, scores {finished}; unfinished: {running.tolist()}")


if __name__ == "__main__":
    main()
