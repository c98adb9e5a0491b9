"""Our own checkpoints as teachers: experts, transferred networks, students, and imports."""

from collections.abc import Iterable, Mapping

from jaxtyping import Shaped
from torch import Tensor, nn

from actor_mimic.compute import Compute
from actor_mimic.envs.gymnasium import TASK_PREFIX
from actor_mimic.errors import DataError, did_you_mean
from actor_mimic.networks.layered import LayeredNetwork
from actor_mimic.networks.q_network import Output, QNetwork
from actor_mimic.networks.student import Student
from actor_mimic.storage.checkpoint import Checkpoint
from actor_mimic.teachers.teacher import Teacher

Network = QNetwork | Student | LayeredNetwork


def load_network(checkpoint: Checkpoint) -> Network:
    """The network that a checkpoint holds, on the CPU.

    Raises:
        DataError: if its tensors do not fit the network that its manifest describes.
    """
    description = checkpoint.network
    try:
        network: Network
        if checkpoint.kind == "student":
            network = Student.from_json(description)
        elif checkpoint.kind == "import":
            network = LayeredNetwork.from_json(description)
        else:
            network = QNetwork.from_json(description)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{checkpoint.path}: the manifest describes no network: {error}") from error
    load_tensors(network, checkpoint.load_tensors("model"), str(checkpoint.path))
    return network


def load_tensors(network: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Loads weights after comparing every name and shape, so that nothing is half loaded.

    Raises:
        DataError: listing what was expected and what came.
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
            raise DataError(
                f"{checkpoint.name} plays {', '.join(checkpoint.tasks)}, not {task}"
                f"{did_you_mean(task, checkpoint.tasks)}"
            )


def tasks_in_file(checkpoint: Checkpoint) -> tuple[str, ...]:
    """What a checkpoint plays, to be played because its file says so and nobody else did.

    Raises:
        DataError: if Gymnasium would import a module that the file names.
    """
    for task in checkpoint.tasks:
        if ":" in task.removeprefix(TASK_PREFIX):
            raise DataError(
                f"{checkpoint.path} plays {task}, whose module would be imported: if you know it, "
                "name the task yourself"
            )
    return tuple(checkpoint.tasks)


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
    return {task: _teacher(checkpoint, task, network, compute) for task in tasks}


def _teacher(checkpoint: Checkpoint, task: str, network: Network, compute: Compute) -> Teacher:
    if isinstance(network, LayeredNetwork):
        obs_shape, num_features = network.spec.obs_shape, network.num_features
        are_logits = network.spec.scores == "logits"
    elif isinstance(network, Student):
        obs_shape, num_features = network.obs_shape(task), network.network.torso.num_features
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
