"""Our own checkpoints as teachers: experts, transferred networks, students, and imports."""

from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from actor_mimic.compute import Compute
from actor_mimic.envs.make import describe_task
from actor_mimic.errors import ConfigError, DataError, did_you_mean
from actor_mimic.networks.layered import LayeredNetwork
from actor_mimic.networks.q_network import Output, QNetwork
from actor_mimic.networks.student import Student
from actor_mimic.networks.working_copy import lower
from actor_mimic.storage.checkpoint import Checkpoint
from actor_mimic.tasks import names_module
from actor_mimic.teachers.teacher import Teacher

Network = QNetwork | Student | LayeredNetwork

# What building a network from any JSON may raise.
_DESCRIBES_NONE = (
    AttributeError,
    KeyError,
    TypeError,
    ValueError,
    OverflowError,
    RuntimeError,
    ConfigError,
)


def load_network(checkpoint: Checkpoint) -> Network:
    """The network that a checkpoint holds, on the CPU.

    Nothing is taken on trust, as the checkpoint may be a stranger's: the network that its manifest
    describes gets no memory before its tensors have been found to fit.

    Raises:
        DataError: if its tensors do not fit the network that its manifest describes, or that one
            not the tasks that it names.
    """
    description = checkpoint.network
    try:
        network: Network
        if checkpoint.kind == "student":
            if description.get("task_actions") != checkpoint.tasks:
                raise ValueError("its student plays other tasks than it names")
            network = Student.from_json(description)
        elif checkpoint.kind == "import":
            network = LayeredNetwork.from_json(description)
        else:
            network = QNetwork.from_json(description)
    except _DESCRIBES_NONE as error:
        raise DataError(
            f"{checkpoint.path}: the manifest describes no network: {error!s:.300}"
        ) from error
    _check_outputs(network, checkpoint)
    load_tensors(network, checkpoint.load_tensors("model"), str(checkpoint.path))
    return network


def load_tensors(network: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Loads weights after comparing every name and shape, so that nothing is half loaded.

    Raises:
        DataError: listing what was expected and what came; if something is not finite, or not a
            float where the network has floats.
    """
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if expected != found:
        lines = [
            f"  {name}: expected {expected.get(name, 'nothing')}, got {found.get(name, 'nothing')}"
            for name in sorted(expected.keys() | found.keys())
            if expected.get(name) != found.get(name)
        ]
        raise DataError("\n".join([f"{source}: the tensors do not fit the network", *lines]))
    for name, value in network.state_dict().items():
        tensor = tensors[name]
        if tensor.dtype.is_floating_point != value.dtype.is_floating_point or tensor.is_complex():
            raise DataError(f"{source}: expected {name} of {value.dtype}, got {tensor.dtype}")
        if not bool(torch.isfinite(tensor).all()):
            raise DataError(f"{source}: expected finite weights, got NaN or infinity in {name}")
    if any(tensor.is_meta for tensor in network.state_dict().values()):
        network.to_empty(device="cpu")
    network.load_state_dict(dict(tensors))


def check_plays(checkpoint: Checkpoint, tasks: Iterable[str]) -> None:
    """Refuses tasks that a checkpoint was not made for.

    Raises:
        DataError: naming the first, and what it does play.
    """
    for task in tasks:
        if task not in checkpoint.tasks:
            raise DataError(not_played(checkpoint.name, checkpoint.tasks, task))


def not_played(name: str, tasks: Iterable[str], task: str) -> str:
    """What is said to who asks somebody for a task that is none of theirs."""
    tasks = tuple(tasks)
    # A hint is taken, and a stranger's file must not have a module imported that way either.
    safe = [known for known in tasks if not names_module(known)]
    return f"{name} plays {', '.join(tasks)}, not {task!r}{did_you_mean(task, safe)}"


def tasks_in_file(checkpoint: Checkpoint) -> tuple[str, ...]:
    """What a checkpoint plays, to be played because its file says so and nobody else did.

    Raises:
        DataError: if Gymnasium would import a module that the file names.
    """
    for task in checkpoint.tasks:
        if names_module(task):
            raise DataError(
                f"{checkpoint.path} plays {task}, whose module would be imported: if you know it, "
                "name the task yourself"
            )
    return tuple(checkpoint.tasks)


def check_fits(teacher: Teacher) -> None:
    """Refuses a network that does not fit its task as it is here.

    Raises:
        DataError: with what the checkpoint says, and what the task has.
        UsageError, UnavailableError: if there is no such task.
    """
    obs_shape, action_names = describe_task(teacher.task)
    if (teacher.obs_shape, teacher.action_names) != (obs_shape, action_names):
        raise DataError(
            f"{teacher.task}: the checkpoint reads {teacher.obs_shape} and has the actions "
            f"{teacher.action_names!r:.300}, the task shows {obs_shape} and has {action_names}"
        )


def load_teacher(checkpoint: Checkpoint, task: str, compute: Compute) -> Teacher:
    """A checkpoint as the teacher of one of its tasks; see `load_teachers`."""
    return load_teachers(checkpoint, [task], compute)[task]


def load_teachers(
    checkpoint: Checkpoint, tasks: Iterable[str], compute: Compute
) -> dict[str, Teacher]:
    """A checkpoint as the teacher of some of its tasks, by task; they share one network.

    Raises:
        DataError: if the checkpoint does not play a task, or its tensors do not fit.
    """
    tasks = list(tasks)
    check_plays(checkpoint, tasks)
    network = load_network(checkpoint)
    compute.place(network)
    network.requires_grad_(False)
    lower(network)
    return {task: _teacher(checkpoint, task, network, compute) for task in tasks}


def _check_outputs(network: Network, checkpoint: Checkpoint) -> None:
    """One output for each action of the one task, or a student of all the tasks."""
    if isinstance(network, Student):
        played = {task: list(names) for task, names in network.task_actions.items()}
        if played != checkpoint.tasks:
            raise DataError(f"{checkpoint.path}: the student plays {', '.join(played)[:300]} alone")
        return
    found = network.spec.num_outputs if isinstance(network, LayeredNetwork) else network.num_outputs
    if [len(names) for names in checkpoint.tasks.values()] != [found]:
        raise DataError(
            f"{checkpoint.path}: expected one task of {found} actions, as its network has, got "
            f"{checkpoint.tasks!r:.300}"
        )


def _teacher(checkpoint: Checkpoint, task: str, network: Network, compute: Compute) -> Teacher:
    if isinstance(network, LayeredNetwork):
        obs_shape, num_features = network.spec.obs_shape, network.num_features
        are_logits = network.spec.scores == "logits"
    elif isinstance(network, Student):
        obs_shape, num_features = network.obs_shape(task), network.num_features
        are_logits = network.scores_are_logits
    else:
        obs_shape, num_features = network.torso.spec.obs_shape, network.torso.num_features
        are_logits = False

    def label(obs: Shaped[Tensor, "batch ..."]) -> Output:
        return network.play(task, obs) if isinstance(network, Student) else network(obs)

    return Teacher(
        task=task,
        action_names=tuple(checkpoint.tasks[task]),
        obs_shape=obs_shape,
        num_features=num_features,
        model_sha256=checkpoint.model_sha256,
        network=label,
        device=compute.device,
        scores_are_logits=are_logits,
        num_parameters=count_parameters(network),
    )


def count_parameters(network: nn.Module) -> int:
    """How many numbers training can change."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_stored_parameters(model: Mapping[str, Tensor]) -> int:
    """The same of the weights of a checkpoint, where backgrounds lie beside what was trained."""
    return sum(
        tensor.numel()
        for name, tensor in model.items()
        if name.split(".")[-1] not in ("background", "backgrounds")
    )
