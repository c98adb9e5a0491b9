"""Names of tasks: an Atari game (``pong``), or ``gym:`` and a Gymnasium id."""

TASK_PREFIX = "gym:"


def is_atari(task: str) -> bool:
    """Whether it is the name of an Atari game, there or not."""
    return not task.startswith(TASK_PREFIX)


def names_module(task: str) -> bool:
    """Whether Gymnasium would import a module to make a task: ``gym:module:Name-v0``."""
    return ":" in task.removeprefix(TASK_PREFIX)
