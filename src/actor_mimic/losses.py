"""The losses of all stages, as pure functions.

Each returns one value per example; the learner takes the mean, so the balance between two losses
never depends on the batch size. Targets and teachers are detached here, and arithmetic is float32
whatever the precision of the inputs.

Axes: batch = examples, in the losses of policies along one axis or several; actions = the
student's alphabet there, the task's own actions in the Q-learning losses; features = units of a
last hidden layer; quantiles = of the return of one action, at the midpoints of equal shares of
probability, lowest first; targets = the quantiles of a target.
"""

import math

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

Legal = Bool[Tensor, "*#batch actions"]
Temperature = float | Float[Tensor, "*#batch"]


def policy_regression_loss(
    student_logits: Float[Tensor, "*batch actions"],
    teacher_scores: Float[Tensor, "*batch actions"],
    legal: Legal,
    *,
    temperature: Temperature,
) -> Float[Tensor, "*batch"]:
    """Cross-entropy of the student's policy under the teacher's softened one.

    A Q-network has values but no policy, so one is made of it: the softmax of its scores over
    the temperature. Cold, it is nearly the greedy action; warm, it also tells how much worse the
    others are. Both softmaxes are over the legal actions, which lets tasks with different actions
    share one output layer: an illegal logit gets a gradient of exactly zero.

    Source: Parisotto, Ba and Salakhutdinov (2016), arXiv:1511.06342, equations 1 and 2, and the
    authors' code, where the temperature divides the teacher's scores only. No deviation.

    Args:
        student_logits: unnormalised log-probabilities, the only input that gets a gradient.
        teacher_scores: Q-values or logits, in the teacher's own scale.
        legal: true where the task has the action, per example, one row for all, or whatever
            else broadcasts to the examples; at least one per row. Illegal entries of the two inputs
            above may hold anything, NaN included.
        temperature: positive, in units of ``teacher_scores``; one for all examples, or a tensor
            that broadcasts to them, which is not checked: that would have to wait for the device.

    Returns:
        The cross-entropy in nats. A perfect student reaches the teacher's entropy, not zero.

    Raises:
        ValueError: if the temperature is not positive and finite.

    Example:
        >>> scores = torch.tensor([[0.0, 5.0, 100.0]])
        >>> legal = torch.tensor([True, True, False])
        >>> policy_regression_loss(torch.zeros(1, 3), scores, legal, temperature=1.0)
        tensor([0.6931])
    """
    policy = softened_policy(teacher_scores, legal, temperature)
    return policy_cross_entropy(student_logits, policy, legal)


def policy_cross_entropy(
    student_logits: Float[Tensor, "*batch actions"],
    teacher_policy: Float[Tensor, "*batch actions"],
    legal: Legal,
) -> Float[Tensor, "*batch"]:
    """The policy regression loss of a teacher whose policy is known already.

    Args:
        student_logits: as in ``policy_regression_loss``.
        teacher_policy: probabilities, zero where illegal, as ``softened_policy`` gives them.
        legal: as in ``policy_regression_loss``.

    Returns:
        The cross-entropy in nats.
    """
    policy = teacher_policy.detach().float()
    log_policy = torch.log_softmax(mask_illegal(student_logits, legal), dim=-1)
    # An illegal term is 0 * -inf, which is NaN in the sum and again in its gradient.
    return -(policy * log_policy.masked_fill(~legal, 0.0)).sum(dim=-1)


def policy_divergence(
    student_logits: Float[Tensor, "*batch actions"],
    teacher_scores: Float[Tensor, "*batch actions"],
    legal: Legal,
    *,
    temperature: Temperature,
) -> Float[Tensor, "*batch"]:
    """How far the student's policy is from the teacher's: KL(teacher || student).

    The policy regression loss less the teacher's entropy, so that zero means equal and tasks
    with sharp and with soft teachers can share a plot. The gradient is that of the loss.

    Source: as an objective, Rusu et al. (2016), Policy Distillation, arXiv:1511.06295, where it is
    the third of three, with temperature 0.01 on the teacher's side only. No deviation.

    Args:
        student_logits: unnormalised log-probabilities.
        teacher_scores: Q-values or logits.
        legal: as in ``policy_regression_loss``.
        temperature: as in ``policy_regression_loss``.

    Returns:
        The divergence in nats; rounding may take it below zero, by about 1e-6.

    Raises:
        ValueError: if the temperature is not positive and finite.
    """
    policy = softened_policy(teacher_scores, legal, temperature)
    return policy_cross_entropy(student_logits, policy, legal) - policy_entropy(policy)


def policy_entropy(policy: Float[Tensor, "*batch actions"]) -> Float[Tensor, "*batch"]:
    """How undecided a policy is, in nats: the least that a cross-entropy under it can be."""
    return torch.special.entr(policy).sum(dim=-1)


def agreement(
    student_logits: Float[Tensor, "*batch actions"],
    teacher_scores: Float[Tensor, "*batch actions"],
    legal: Legal,
) -> Bool[Tensor, "*batch"]:
    """Whether the student's best legal action is the teacher's.

    Args:
        student_logits: unnormalised log-probabilities.
        teacher_scores: Q-values or logits.
        legal: as in ``policy_regression_loss``.

    Returns:
        True where both favour the same action; of equal scores, either side's first counts.
    """
    student_action = mask_illegal(student_logits, legal).argmax(dim=-1)
    return student_action == mask_illegal(teacher_scores, legal).argmax(dim=-1)


def feature_regression_loss(
    predicted_features: Float[Tensor, "batch features"],
    teacher_features: Float[Tensor, "batch features"],
) -> Float[Tensor, " batch"]:
    """Squared distance between the regressor's output and the teacher's features.

    Source: Parisotto, Ba and Salakhutdinov (2016), arXiv:1511.06342, equation 3: summed over
    units, neither averaged nor halved. The authors' code takes half of it, so a beta from there
    counts double here.

    Args:
        predicted_features: the task's regressor applied to the student's last hidden layer; the
            gradient goes on into both.
        teacher_features: the teacher's last hidden layer, not normalised.

    Returns:
        The squared norm, in squared units of the teacher's features.
    """
    error = predicted_features.float() - teacher_features.detach().float()
    return error.square().sum(dim=-1)


def td_targets(
    returns: Float[Tensor, " batch"],
    discounts: Float[Tensor, " batch"],
    next_q_target: Float[Tensor, "batch actions"],
    next_q_online: Float[Tensor, "batch actions"] | None,
) -> Float[Tensor, " batch"]:
    """Bootstrapped n-step targets: the return, and the discounted value of what follows it.

    Source: Mnih et al. (2015) with a target network; with ``next_q_online``, double Q-learning
    as in van Hasselt, Guez and Silver (2016), arXiv:1509.06461: one network chooses the next
    action, the other values it.

    Args:
        returns: discounted sum of the n rewards.
        discounts: ``gamma ** n``, or 0 where the episode ended for good within the n steps; the
            next values are ignored there and may hold anything.
        next_q_target: Q-values of the target network, n steps on.
        next_q_online: Q-values of the online network there; None for the plain maximum.

    Returns:
        The targets in float32, detached from every input.
    """
    next_q_target = next_q_target.detach().float()
    chooser = next_q_target if next_q_online is None else next_q_online.detach()
    next_values = next_q_target.gather(1, chooser.argmax(dim=1, keepdim=True)).squeeze(1)
    discounts = discounts.detach().float()
    return returns.detach().float() + discounts * next_values.masked_fill(discounts == 0.0, 0.0)


def td_loss(
    q_values: Float[Tensor, "batch actions"],
    actions: Int64[Tensor, " batch"],
    targets: Float[Tensor, " batch"],
    *,
    huber_delta: float | None = 1.0,
) -> Float[Tensor, " batch"]:
    """Huber loss of the taken action's value: half the squared error, linear beyond delta.

    The gradient is the error clipped to ``[-delta, delta]``, and with delta 1 that is the error
    clipping of Mnih et al. (2015).

    Args:
        q_values: the online network's values.
        actions: the taken actions; no other value gets a gradient.
        targets: what the taken actions' values should be; detached.
        huber_delta: positive, in units of the values; None for half the squared error throughout.

    Returns:
        The loss, in squared units of the values.

    Raises:
        ValueError: if ``huber_delta`` is not positive.
    """
    if huber_delta is not None and not huber_delta > 0.0:
        raise ValueError(f"huber_delta must be positive or None, got {huber_delta}")
    taken = q_values.gather(1, actions.unsqueeze(1)).squeeze(1).float()
    targets = targets.detach().float()
    if huber_delta is None:
        return 0.5 * (taken - targets).square()
    return torch.nn.functional.huber_loss(taken, targets, reduction="none", delta=huber_delta)


def quantile_td_targets(
    returns: Float[Tensor, " batch"],
    discounts: Float[Tensor, " batch"],
    next_quantiles_target: Float[Tensor, "batch actions quantiles"],
    next_q_online: Float[Tensor, "batch actions"] | None,
) -> Float[Tensor, "batch quantiles"]:
    """The return, and each discounted quantile of what follows it.

    Source: Dabney, Rowland, Bellemare and Munos (2018), Distributional Reinforcement Learning
    with Quantile Regression, arXiv:1710.10044, algorithm 1: the next action is the one of the
    best mean. With ``next_q_online``, as in `td_targets`, the online network's means choose it.

    Args:
        returns: discounted sum of the n rewards.
        discounts: as in `td_targets`.
        next_quantiles_target: quantiles of the target network, n steps on.
        next_q_online: means of the online network's quantiles there; None to choose by those of
            the target network.

    Returns:
        The quantiles of the targets in float32, detached from every input.
    """
    next_quantiles = next_quantiles_target.detach().float()
    chooser = next_quantiles.mean(dim=2) if next_q_online is None else next_q_online.detach()
    following = _of_actions(next_quantiles, chooser.argmax(dim=1))
    discounts = discounts.detach().float()[:, None]
    following = following.masked_fill(discounts == 0.0, 0.0)
    return returns.detach().float()[:, None] + discounts * following


def quantile_td_loss(
    quantiles: Float[Tensor, "batch actions quantiles"],
    actions: Int64[Tensor, " batch"],
    target_quantiles: Float[Tensor, "batch targets"],
    *,
    kappa: float = 1.0,
) -> Float[Tensor, " batch"]:
    """Quantile regression of the taken action's return, with Huber's rounded corner.

    The quantile at tau pays (1 - tau) for every unit that it lies above a target and tau for
    every unit below, so it comes to rest with a share tau of the targets beneath it.

    Source: Dabney et al. (2018), arXiv:1710.10044, equations 9 and 10 and algorithm 1: a sum over
    one's own quantiles of the mean over the targets, and the Huber loss not divided by kappa. No
    deviation. The sum makes gradients longer as there are more quantiles; the mean does not.

    Args:
        quantiles: the online network's, at tau = (i + 1/2) / quantiles.
        actions: the taken actions; the quantiles of no other get a gradient.
        target_quantiles: equally likely values of the return; detached. They may be more or fewer
            than the quantiles.
        kappa: positive, in units of the returns: errors beyond it count linearly.

    Returns:
        The loss, in squared units of the returns.

    Raises:
        ValueError: if ``kappa`` is not positive.

    Example:
        >>> quantiles, action = torch.zeros(1, 1, 2), torch.tensor([0])
        >>> quantile_td_loss(quantiles, action, torch.tensor([[3.0, 3.0]]))  # (1/4 + 3/4) 2.5
        tensor([2.5000])
    """
    if not kappa > 0.0:
        raise ValueError(f"kappa must be positive, got {kappa}")
    own = _of_actions(quantiles, actions).float()
    targets = target_quantiles.detach().float()
    count = own.shape[1]
    tau = (torch.arange(count, dtype=torch.float32, device=own.device) + 0.5) / count
    # Axes of the pairs: batch, quantiles, targets.
    errors = targets[:, None, :] - own[:, :, None]
    size = torch.nn.functional.huber_loss(
        errors, torch.zeros_like(errors), reduction="none", delta=kappa
    )
    weights = (tau[:, None] - (errors.detach() < 0.0).float()).abs()
    return (weights * size).mean(dim=2).sum(dim=1)


def lambda_regression_loss(
    q_values: Float[Tensor, "batch actions"],
    actions: Int64[Tensor, " batch"],
    lambda_targets: Float[Tensor, " batch"],
) -> Float[Tensor, " batch"]:
    """Half the squared distance between the taken action's value and its lambda-return.

    Source: Gallici et al. (2024), Simplifying Deep Temporal Difference Learning,
    arXiv:2407.04811. No deviation: the error is not clipped.

    Args:
        q_values: the network's values.
        actions: the taken actions; no other value gets a gradient.
        lambda_targets: from ``returns.lambda_returns``; detached.

    Returns:
        The loss, in squared units of the values.
    """
    return td_loss(q_values, actions, lambda_targets, huber_delta=None)


def _of_actions(
    quantiles: Float[Tensor, "batch actions quantiles"], actions: Int64[Tensor, " batch"]
) -> Float[Tensor, "batch quantiles"]:
    rows = actions[:, None, None].expand(-1, 1, quantiles.shape[2])
    return quantiles.gather(1, rows).squeeze(1)


def mask_illegal(
    scores: Float[Tensor, "*batch actions"], legal: Legal
) -> Float[Tensor, "*batch actions"]:
    """The scores in float32, minus infinity where illegal; no gradient passes there."""
    # Filling, unlike adding -inf, also removes a NaN and stops its gradient.
    return scores.float().masked_fill(~legal, -torch.inf)


def softened_policy(
    teacher_scores: Float[Tensor, "*batch actions"], legal: Legal, temperature: Temperature
) -> Float[Tensor, "*batch actions"]:
    """The teacher's policy: softmax of its scores over the temperature, detached.

    Raises:
        ValueError: if the temperature is a number and not positive and finite.
    """
    if isinstance(temperature, Tensor):
        temperature = temperature[..., None]
    elif not (temperature > 0.0 and math.isfinite(temperature)):
        raise ValueError(f"temperature must be positive and finite, got {temperature}")
    scores = mask_illegal(teacher_scores.detach(), legal)
    # Gaps first: dividing large scores by a small temperature would overflow, or round them away.
    gaps = scores - scores.amax(dim=-1, keepdim=True)
    return torch.softmax(gaps / temperature, dim=-1)
