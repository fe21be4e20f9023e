"""The amplitudes, on random instances in float64."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
import scipy.special
from jax.scipy.special import xlogy

from benchmarks.paper.theory.claims import (
    TOLERANCE,
    Sizes,
    difference,
    excess,
    mapped,
)
from qiaso_jax import theory

COUNTER_EXAMPLE = {"losses": [-2.0, -1.0], "p": [0.5, 0.5], "eta": 1.0}
"""To the last inequality of Lemma 2.1."""
MEDIANS = ("sum_of_squares", "printed_orders_off")
"""Of all instances; of other numbers, the mean is kept."""
EXPONENTS = (1, 10, 100)
"""η times the gap between the lowest loss and the next, for Lemma 3.3."""


class Instances(NamedTuple):
    """``[number, K]`` numbers, and inverse temperatures ``[number]``."""

    losses: np.ndarray
    p: np.ndarray
    eta: np.ndarray
    rival: np.ndarray
    """Other probabilities."""
    weights: np.ndarray


def instances(
    number: int, width: int, etas: tuple[float, float] = (2**-6, 30)
) -> Instances:
    """Losses from −10 to 10, half of them with ties; priors without zeros."""
    rng = np.random.default_rng(width)
    losses = rng.uniform(-10, 10, (number, width))
    losses[::2] = np.round(losses[::2])
    concentration = rng.choice([0.3, 1.0, 10.0], (number, 1))
    p = np.maximum(rng.standard_gamma(np.tile(concentration, (1, width))), 1e-9)
    p /= p.sum(axis=1, keepdims=True)
    eta = np.exp(rng.uniform(*np.log(etas), size=number))
    rival = rng.dirichlet(np.full(width, 0.5), number)
    return Instances(losses, p, eta, rival, rng.normal(size=p.shape))


def measure(sizes: Sizes) -> dict[str, Any]:
    """The greatest violation of each statement, and what is typical, by all widths."""
    some = [instances(sizes.instances, width) for width in sizes.widths]
    violations, typical = (
        jax.tree.map(lambda *x: np.concatenate(x), *(mapped(f, *each) for each in some))
        for f in (violated, described)
    )
    excesses, distances = zip(
        *(minimised(sizes.minimised, width) for width in sizes.widths), strict=True
    )
    counter = theory.amplification_bounds(**COUNTER_EXAMPLE)
    means = {name: np.mean(values) for name, values in typical.items()}
    return {
        "instances": sizes.instances * len(sizes.widths),
        "minimised": sizes.minimised * len(sizes.widths),
        "violations": {name: np.max(values) for name, values in violations.items()}
        | {"minimiser": max(excesses)},
        "typical": means
        | {name: np.median(typical[name]) for name in MEDIANS}
        | {"expected_weight_sd": np.std(typical["expected_weight"])}
        | {"minimiser_distance": max(distances)},
        "counter_example": COUNTER_EXAMPLE
        | {name: float(value) for name, value in counter._asdict().items()},
    }


def violated(losses: Any, p: Any, eta: Any, rival: Any, _: Any) -> dict[str, Any]:
    """By how much one instance violates each statement."""
    new = theory.exponential_weights(losses, p, eta)
    kl = theory.kl_divergence(new, p)
    before, after = p @ losses, new @ losses
    bounds = theory.amplification_bounds(losses, p, eta)
    positive = theory.amplification_bounds(losses - jnp.min(losses), p, eta)
    objective = partial(theory.variational_objective, losses=losses, p=p, eta=eta)
    from_uniform = theory.exponential_weights(losses, jnp.ones_like(p) / len(p), eta)
    bregman = jnp.sum(xlogy(new, new) - xlogy(p, p) - theory.mirror_map(p) * (new - p))
    slack = theory.monotone_decrease_slack(losses, p, new, eta)
    pinsker = theory.pinsker_slack(new, p)
    return {
        "simplex": jnp.maximum(difference(jnp.sum(new), 1), -jnp.min(new)),
        "range": jnp.maximum(
            excess(after, jnp.max(losses)), excess(jnp.min(losses), after)
        ),
        "rivals": excess(objective(new), objective(rival)),
        "gibbs": jnp.max(difference(from_uniform, jax.nn.softmax(-eta * losses))),
        "bregman": difference(bregman, kl),
        "mirror": jnp.max(difference(theory.mirror_step(losses, p, eta), new)),
        "decrease_bound": excess(kl, bounds.decrease_bound),
        "loss_bound_positive": excess(positive.decrease_bound, positive.loss_bound),
        "loss_bound": excess(kl, bounds.loss_bound),
        "pinsker": excess(jnp.zeros_like(pinsker), pinsker),
        "monotone": excess(after + kl / eta, before),
        "slack": difference(slack, theory.kl_divergence(p, new) / eta),
        "projection": projection_error(losses, p, EXPONENTS[-1]),
    }


def described(losses: Any, p: Any, eta: Any, _: Any, weights: Any) -> dict[str, Any]:
    """Of one instance, what tells how a statement fails."""
    new = theory.exponential_weights(losses, p, eta)
    bounds = theory.amplification_bounds(losses, p, eta)
    return {
        "sum_of_squares": new @ new,
        "expected_weight": new @ weights,
        "printed_orders_off": abs(jnp.log10(p @ jnp.exp(-eta * losses))),
        "loss_bound_fails": bounds.kl > bounds.loss_bound + TOLERANCE,
        "ties": jnp.sum(losses == jnp.min(losses)) > 1,
        **{f"projection_{e}": projection_error(losses, p, e) for e in EXPONENTS},
    }


def projection_error(losses: Any, p: Any, exponent: float) -> jax.Array:
    """The ℓ₁ distance to the projection of Lemma 3.3 at η = exponent / gap."""
    above = losses - jnp.min(losses)
    gap = jnp.min(above, where=above > 0, initial=jnp.inf)
    eta = exponent / jnp.where(jnp.isfinite(gap), gap, 1)
    weights = theory.exponential_weights(losses, p, eta)
    return jnp.sum(abs(weights - theory.project_onto_minimisers(losses, p)))


def minimised(number: int, width: int) -> tuple[float, float]:
    """BFGS on logits against the closed form: whether it gets below, and how near.

    It may stop a little above, where a softmax is flat.
    """
    some = instances(number, width, etas=(2**-4, 2))[:3]
    closed = mapped(theory.exponential_weights, *some)
    found = np.array([minimiser(*one) for one in zip(*some, strict=True)])
    objectives = [
        mapped(theory.variational_objective, q, *some) for q in (closed, found)
    ]
    return np.max(excess(*objectives)), np.max(np.abs(closed - found))


def minimiser(losses: np.ndarray, p: np.ndarray, eta: float) -> np.ndarray:
    """Of J (Eq 6) over the simplex, which knows nothing of the closed form."""

    def objective(logits):
        log_q = scipy.special.log_softmax(logits)
        q = np.exp(log_q)
        each = losses + (log_q - np.log(p)) / eta
        value = q @ each
        return value, q * (each - value)

    start = np.zeros_like(losses)
    result = scipy.optimize.minimize(
        objective, start, jac=True, method="BFGS", options={"gtol": 1e-10}
    )
    return scipy.special.softmax(result.x)
