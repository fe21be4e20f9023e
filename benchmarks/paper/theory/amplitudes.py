"""Sections 2.2 to 3.2.1: the amplitudes, on random instances in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.optimize
import scipy.special

from benchmarks.paper.theory.findings import (
    TOLERANCE,
    Finding,
    Instances,
    Sizes,
    difference,
    equality,
    excess,
    holds,
    inequality,
    instances,
    mapped,
    share,
)
from qiaso_jax import theory

COUNTER_EXAMPLE = {"losses": [-2.0, -1.0], "p": [0.5, 0.5], "eta": 1.0}
"""To the last inequality of Lemma 2.1."""
EXPONENTS = (1, 10, 100)
"""η times the gap between the lowest loss and the next, for Lemma 3.3."""


def measure(sizes: Sizes) -> dict[str, Any]:
    """The greatest violation of each statement, and what is typical, by all widths."""
    some = [instances(sizes.instances, width) for width in sizes.widths]
    violations = [violated(each) for each in some]
    typical = [described(each) for each in some]
    numerical = [minimised(sizes.minimised, width) for width in sizes.widths]
    counter = theory.amplification_bounds(**COUNTER_EXAMPLE)
    return {
        "instances": sizes.instances * len(sizes.widths),
        "minimised": sizes.minimised * len(sizes.widths),
        "violations": {
            name: float(max(each[name] for each in violations))
            for name in violations[0]
        }
        | {"minimiser": max(each["excess"] for each in numerical)},
        "typical": {
            name: float(np.mean([each[name] for each in typical]))
            for name in typical[0]
        }
        | {"minimiser_distance": max(each["distance"] for each in numerical)},
        "counter_example": COUNTER_EXAMPLE
        | {name: float(value) for name, value in counter._asdict().items()},
    }


def violated(some: Instances) -> dict[str, float]:
    """By how much each statement is violated at most."""
    losses, p, eta = some
    new = mapped(theory.exponential_weights, *some)
    kl = mapped(theory.kl_divergence, new, p)
    before, after = np.sum(p * losses, 1), np.sum(new * losses, 1)
    bounds = mapped(theory.amplification_bounds, *some)
    positive = mapped(theory.amplification_bounds, losses - losses.min(), p, eta)
    rivals = np.random.default_rng(1).dirichlet(np.full(p.shape[1], 0.5), len(p))
    objective = [mapped(theory.variational_objective, q, *some) for q in (new, rivals)]
    slack = mapped(theory.monotone_decrease_slack, losses, p, new, eta)
    pinsker = mapped(theory.pinsker_slack, new, p)
    uniform = np.full_like(p, 1 / p.shape[1])
    return {
        "simplex": max(difference(new.sum(1), np.ones(len(p))), float(-new.min())),
        "range": max(excess(after, losses.max(1)), excess(losses.min(1), after)),
        "rivals": excess(*objective),
        "gibbs": difference(
            mapped(theory.exponential_weights, losses, uniform, eta),
            scipy.special.softmax(-eta[:, None] * losses, axis=1),
        ),
        "bregman": difference(bregman(new, p), kl),
        "mirror": difference(mapped(theory.mirror_step, *some), new),
        "decrease_bound": excess(kl, bounds.decrease_bound),
        "loss_bound_positive": excess(positive.decrease_bound, positive.loss_bound),
        "loss_bound": excess(kl, bounds.loss_bound),
        "condition": difference(bounds.loss_bound - bounds.decrease_bound, eta * after),
        "pinsker": excess(np.zeros_like(pinsker), pinsker),
        "monotone": excess(after + kl / eta, before),
        "slack": difference(slack, mapped(theory.kl_divergence, p, new) / eta),
        "projection": projection_error(some, EXPONENTS[-1]),
    }


def described(some: Instances) -> dict[str, Any]:
    """What is typical of the instances where a statement fails."""
    losses, p, eta = some
    new = mapped(theory.exponential_weights, *some)
    bounds = mapped(theory.amplification_bounds, *some)
    weights = np.random.default_rng(2).normal(size=p.shape)
    log_sums = np.log(np.sum(p * np.exp(-eta[:, None] * losses), axis=1))
    minimisers = losses == losses.min(1, keepdims=True)
    return {
        "sum_of_squares": np.median(np.sum(new**2, 1)),
        "expected_weight": np.mean(np.sum(new * weights, 1)),
        "expected_weight_sd": np.std(np.sum(new * weights, 1)),
        "printed_orders_off": np.median(np.abs(log_sums)) / np.log(10),
        "loss_bound_fails": np.mean(bounds.kl > bounds.loss_bound + TOLERANCE),
        "ties": np.mean(minimisers.sum(1) > 1),
        **{f"projection_{e}": projection_error(some, e, np.mean) for e in EXPONENTS},
    }


def bregman(q: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Of the negative entropy, by its definition (Eq 21)."""
    entropies = [scipy.special.xlogy(x, x).sum(1) for x in (q, p)]
    return (
        entropies[0] - entropies[1] - np.sum(mapped(theory.mirror_map, p) * (q - p), 1)
    )


def projection_error(some: Instances, exponent: float, summary: Any = np.max) -> float:
    """The ℓ₁ distance to the projection of Lemma 3.3 at η = exponent / gap."""
    losses, p, _ = some
    above = losses - losses.min(1, keepdims=True)
    gap = np.min(np.where(above > 0, above, np.inf), 1)
    etas = exponent / np.where(np.isfinite(gap), gap, 1.0)
    limit = mapped(theory.project_onto_minimisers, losses, p)
    weights = mapped(theory.exponential_weights, losses, p, etas)
    return float(summary(np.abs(weights - limit).sum(1)))


def minimised(number: int, width: int) -> dict[str, float]:
    """BFGS on logits against the closed form: whether it gets below, and how near.

    It may stop a little above, where a softmax is flat.
    """
    some = instances(number, width, etas=(2**-4, 2))
    closed = mapped(theory.exponential_weights, *some)
    found = np.array([minimiser(*one) for one in zip(*some, strict=True)])
    objective = [
        mapped(theory.variational_objective, q, *some) for q in (closed, found)
    ]
    distance = float(np.max(np.abs(closed - found)))
    return {"excess": excess(*objective), "distance": distance}


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


def findings(content: dict[str, Any]) -> list[Finding]:
    """In the order of the paper."""
    violations, typical = content["violations"], content["typical"]
    counter = content["counter_example"]
    random = f"{content['instances']:,} random instances"

    def bound(where: str, statement: str, *names: str) -> Finding:
        worst = max(violations[name] for name in names)
        return Finding(where, statement, random, inequality(worst), holds(worst))

    def identity(where: str, statement: str, name: str) -> Finding:
        worst = violations[name]
        return Finding(where, statement, random, equality(worst), holds(worst))

    mean, deviation = typical["expected_weight"], typical["expected_weight_sd"]
    squares, distance = typical["sum_of_squares"], typical["minimiser_distance"]
    orders, fails = typical["printed_orders_off"], typical["loss_bound_fails"]
    far, near, limit = (typical[f"projection_{e}"] for e in EXPONENTS)
    return [
        Finding(
            "Eq 2",
            "the expected weight is 1",
            f"{random} with weights from 𝒩(0, 1)",
            f"{mean:.2g} ± {deviation:.2g}",
            "reproduced" if abs(mean - 1) + deviation < TOLERANCE else "wrong",
        ),
        Finding(
            "Eq 1, 42 against 4, 50",
            "φ² sums to 1, and so does φ after an amplification",
            random,
            f"where φ sums to 1, φ² sums to {squares:.3g} (median)",
            "contradictory" if abs(squares - 1) > TOLERANCE else "reproduced",
        ),
        Finding(
            "Eq 16",
            "exponential weights minimise ⟨q, L⟩ + KL(q‖p)/η over the simplex",
            f"{random} against a random rival each; BFGS on {content['minimised']:,}",
            f"rivals: {inequality(violations['rivals'])}; BFGS: "
            f"{inequality(violations['minimiser'])}, ends within {distance:.1g}",
            holds(violations["rivals"], violations["minimiser"]),
        ),
        identity("Eq 18, 19", "from a uniform prior they are Gibbs'", "gibbs"),
        identity("Eq 22", "the Bregman divergence of −entropy is KL", "bregman"),
        identity("Eq 24, 30", "the mirror-descent step is the same update", "mirror"),
        Finding(
            "Eq 27–29, 31 against 30",
            "log p' = log q − ηℓ, without a normaliser",
            random,
            f"the p' of Eq 29 sum to 1 but for a factor of 10^{orders:.2g} (median), "
            "by which Eq 30 divides",
            "contradictory" if orders > TOLERANCE else "reproduced",
        ),
        bound("Lemma 2.1, Eq 37", "KL(p'‖p) ≤ η(E_p ℓ − E_p' ℓ)", "decrease_bound"),
        Finding(
            "Lemma 2.1, Eq 33, 38",
            "KL(p'‖p) ≤ η E_p ℓ for any real loss",
            f"{random}, losses from −10 to 10",
            f"fails on {share(fails)} of instances, for one ℓ = "
            f"{tuple(counter['losses'])}, p = {tuple(counter['p'])}, η = "
            f"{counter['eta']:g}: KL = {counter['kl']:.2g}, bound "
            f"{counter['loss_bound']:g}; with the condition that it needs, E_p' ℓ ≥ 0: "
            + inequality(violations["loss_bound_positive"]),
            holds(violations["loss_bound"]),
        ),
        bound("Remark 2.1", "Pinsker: ‖p' − p‖₁ ≤ √(2 KL(p'‖p))", "pinsker"),
        bound(
            "Section 3.1, Lemma 3.2",
            "p stays in the simplex, E ℓ between the least and the greatest loss",
            "simplex",
            "range",
        ),
        Finding(
            "Lemma 3.1, Eq 45, 52",
            "E_p' ℓ ≤ E_p ℓ − KL(p'‖p)/η, for the same losses",
            random,
            f"{inequality(violations['monotone'])}; the slack is KL(p‖p')/η, "
            + equality(violations["slack"]),
            holds(violations["monotone"]),
        ),
        Finding(
            "Lemma 3.3, Eq 54–56",
            "η → ∞ projects p onto the minimisers, ties in proportion",
            f"{random}, {share(typical['ties'])} with tied minimisers",
            f"ℓ₁ distance {far:.2g}, {near:.2g}, {limit:.2g} (mean) at η·gap = "
            + ", ".join(map(str, EXPONENTS)),
            holds(violations["projection"]),
        ),
    ]
