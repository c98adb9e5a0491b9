"""Other objectives of distillation than the paper's, and what a teacher's features are taken as.

Pure functions, as in ``losses.py``, with the same axes: one value per example, the teacher
detached, arithmetic in float32, and illegal entries may hold anything.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from actor_mimic.losses import Legal, mask_illegal

OBJECTIVES = ("cross_entropy", "kl", "nll", "mse")
FEATURE_TARGETS = ("raw", "normalised")

NORM_EPSILON = 1e-5  # PyTorch's own, of layer norm


def best_action_loss(
    student_logits: Float[Tensor, "*batch actions"],
    teacher_scores: Float[Tensor, "*batch actions"],
    legal: Legal,
) -> Float[Tensor, "*batch"]:
    """Negative log-likelihood of the teacher's best action under the student's policy.

    What the policy regression loss comes to as the temperature goes to zero: how close the other
    actions were is not passed on.

    Source: Rusu et al. (2016), Policy Distillation, arXiv:1511.06295, their first objective
    (NLL). No deviation; the softmax is over the legal actions.

    Args:
        student_logits: unnormalised log-probabilities, the only input that gets a gradient.
        teacher_scores: Q-values or logits.
        legal: as in ``policy_regression_loss``.

    Returns:
        The loss in nats; of equal scores, the teacher's first counts.

    Example:
        >>> legal = torch.tensor([True, True, False])
        >>> best_action_loss(torch.zeros(1, 3), torch.tensor([[0.0, 5.0, 100.0]]), legal)
        tensor([0.6931])
    """
    best = mask_illegal(teacher_scores.detach(), legal).argmax(dim=-1, keepdim=True)
    log_policy = torch.log_softmax(mask_illegal(student_logits, legal), dim=-1)
    return -log_policy.gather(-1, best).squeeze(-1)


def score_regression_loss(
    student_scores: Float[Tensor, "*batch actions"],
    teacher_scores: Float[Tensor, "*batch actions"],
    legal: Legal,
) -> Float[Tensor, "*batch"]:
    """Squared distance between the student's and the teacher's scores of the legal actions.

    The student learns values and no policy, in each teacher's own scale: a task whose returns are
    ten times as large counts a hundred times as much.

    Source: Rusu et al. (2016), arXiv:1511.06295, their second objective (MSE). No deviation:
    summed over actions, neither averaged nor halved.

    Args:
        student_scores: taken as values, the only input that gets a gradient.
        teacher_scores: Q-values. Logits are regressed on as they are, although a constant added
            to them would not change the teacher's policy.
        legal: as in ``policy_regression_loss``.

    Returns:
        The squared norm, in squared units of the scores.

    Example:
        >>> legal = torch.tensor([True, True, False])
        >>> score_regression_loss(torch.ones(1, 3), torch.tensor([[0.0, 3.0, 100.0]]), legal)
        tensor([5.])
    """
    # Filled on both sides, so that an illegal error and its gradient are zero.
    student = student_scores.float().masked_fill(~legal, 0.0)
    teacher = teacher_scores.detach().float().masked_fill(~legal, 0.0)
    return (student - teacher).square().sum(dim=-1)


def normalised_features(
    features: Float[Tensor, "batch features"],
) -> Float[Tensor, "batch features"]:
    """A teacher's features with mean 0 and variance 1 over the units of each example.

    Teachers differ in the size of their features as much as in that of their values. Normalised,
    they ask for the pattern only, and one weight (beta) suits them all.

    Source: layer norm without scale and shift (Ba, Kiros and Hinton 2016, arXiv:1607.06450); the
    paper takes the features as they are.

    Args:
        features: the teacher's last hidden layer.

    Returns:
        The same in float32, detached. Equal units are all zero.
    """
    features = features.detach().float()
    return torch.nn.functional.layer_norm(features, features.shape[-1:], eps=NORM_EPSILON)
