"""The per-task nets f_i from the student's features to a teacher's.

They are part of the distillation objective and not of the student: they are saved apart, and
thrown away when the student plays.
"""

import torch
from torch import nn

from actor_mimic.errors import ConfigError, did_you_mean
from actor_mimic.networks.q_network import initialise

REGRESSORS = ("identity", "linear", "hidden")
HIDDEN_UNITS = 256  # the authors' `singlelayer` variant


def build_regressor(
    kind: str, student_features: int, teacher_features: int, *, generator: torch.Generator
) -> nn.Module:
    """One f_i.

    Source: Parisotto, Ba and Salakhutdinov (2016), equation 3; ``linear`` (with bias, nothing
    after it) is what the authors' code uses for the paper's results.

    Args:
        kind: ``identity`` (equal widths only), ``linear`` or ``hidden`` (one layer of 256).
        student_features: width of the student's last hidden layer.
        teacher_features: width of the teacher's.
        generator: where the initial weights come from.

    Raises:
        ConfigError: if the kind is unknown, or ``identity`` is asked for unequal widths.
    """
    with torch.device("meta"):
        regressor = _build(kind, student_features, teacher_features)
    initialise(regressor, generator)
    return regressor


def _build(kind: str, student_features: int, teacher_features: int) -> nn.Module:
    match kind:
        case "identity":
            if student_features != teacher_features:
                raise ConfigError(
                    "the identity regressor needs equal widths, the student has "
                    f"{student_features} features and the teacher {teacher_features}"
                )
            return nn.Identity()
        case "linear":
            return nn.Linear(student_features, teacher_features)
        case "hidden":
            return nn.Sequential(
                nn.Linear(student_features, HIDDEN_UNITS),
                nn.ReLU(),
                nn.Linear(HIDDEN_UNITS, teacher_features),
            )
        case _:
            raise ConfigError(
                f"unknown regressor {kind!r}, expected one of {', '.join(REGRESSORS)}"
                f"{did_you_mean(kind, REGRESSORS)}"
            )
