"""Sections 2.2 to 3.2.1: what is said of the amplitudes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.paper.section import reproduced, share
from benchmarks.paper.theory.amplitudes import EXPONENTS
from benchmarks.paper.theory.claims import (
    TOLERANCE,
    Claims,
    Outcome,
    equality,
    holds,
    inequality,
)

CLAIMS = Claims()


def random(content: dict[str, Any]) -> str:
    """What every claim is tested on."""
    return f"{content['instances']:,} random instances"


def add(where: str, statement: str, told: Callable[[float], str], *names: str) -> None:
    """Adds an ``equality`` or an ``inequality``, by its violations."""

    @CLAIMS.add(where, statement)
    def _(content: dict[str, Any]) -> Outcome:
        worst = max(content["violations"][name] for name in names)
        return Outcome(random(content), told(worst), holds(worst))


@CLAIMS.add("Eq 2", "the expected weight is 1")
def _expected_weight(content: dict[str, Any]) -> Outcome:
    typical = content["typical"]
    mean, deviation = typical["expected_weight"], typical["expected_weight_sd"]
    return Outcome(
        f"{random(content)} with weights from 𝒩(0, 1)",
        f"{mean:.2g} ± {deviation:.2g}",
        reproduced(abs(mean - 1) + deviation < TOLERANCE, "wrong"),
    )


@CLAIMS.add(
    "Eq 1, 42 against 4, 50", "φ² sums to 1, and so does φ after an amplification"
)
def _normalisation(content: dict[str, Any]) -> Outcome:
    squares = content["typical"]["sum_of_squares"]
    return Outcome(
        random(content),
        f"where φ sums to 1, φ² sums to {squares:.3g} (median)",
        reproduced(abs(squares - 1) <= TOLERANCE, "contradictory"),
    )


@CLAIMS.add("Eq 16", "exponential weights minimise ⟨q, L⟩ + KL(q‖p)/η over the simplex")
def _minimum(content: dict[str, Any]) -> Outcome:
    rivals, numerical = (content["violations"][k] for k in ("rivals", "minimiser"))
    distance = content["typical"]["minimiser_distance"]
    return Outcome(
        f"{random(content)} against a random rival each; BFGS on "
        f"{content['minimised']:,}",
        f"rivals: {inequality(rivals)}; BFGS: {inequality(numerical)}, ends within "
        f"{distance:.1g}",
        holds(rivals, numerical),
    )


add("Eq 18, 19", "from a uniform prior they are Gibbs'", equality, "gibbs")
add("Eq 22", "the Bregman divergence of −entropy is KL", equality, "bregman")
add("Eq 24, 30", "the mirror-descent step is the same update", equality, "mirror")


@CLAIMS.add("Eq 27–29, 31 against 30", "log p' = log q − ηℓ, without a normaliser")
def _printed_dual(content: dict[str, Any]) -> Outcome:
    orders = content["typical"]["printed_orders_off"]
    return Outcome(
        random(content),
        f"the p' of Eq 29 sum to 1 but for a factor of 10^{orders:.2g} (median), "
        "by which Eq 30 divides",
        reproduced(orders <= TOLERANCE, "contradictory"),
    )


add("Lemma 2.1, Eq 37", "KL(p'‖p) ≤ η(E_p ℓ − E_p' ℓ)", inequality, "decrease_bound")


@CLAIMS.add("Lemma 2.1, Eq 33, 38", "KL(p'‖p) ≤ η E_p ℓ for any real loss")
def _loss_bound(content: dict[str, Any]) -> Outcome:
    violations, counter = content["violations"], content["counter_example"]
    return Outcome(
        f"{random(content)}, losses from −10 to 10",
        f"fails on {share(content['typical']['loss_bound_fails'])} of instances, for "
        f"one ℓ = {tuple(counter['losses'])}, p = {tuple(counter['p'])}, η = "
        f"{counter['eta']:g}: KL = {counter['kl']:.2g}, bound "
        f"{counter['loss_bound']:g}; with the condition that it needs, E_p' ℓ ≥ 0: "
        + inequality(violations["loss_bound_positive"]),
        holds(violations["loss_bound"]),
    )


add("Remark 2.1", "Pinsker: ‖p' − p‖₁ ≤ √(2 KL(p'‖p))", inequality, "pinsker")
add(
    "Section 3.1, Lemma 3.2",
    "p stays in the simplex, E ℓ between the least and the greatest loss",
    inequality,
    "simplex",
    "range",
)


@CLAIMS.add("Lemma 3.1, Eq 45, 52", "E_p' ℓ ≤ E_p ℓ − KL(p'‖p)/η, for the same losses")
def _decrease(content: dict[str, Any]) -> Outcome:
    violation, slack = (content["violations"][k] for k in ("monotone", "slack"))
    return Outcome(
        random(content),
        f"{inequality(violation)}; the slack is KL(p‖p')/η, {equality(slack)}",
        holds(violation),
    )


@CLAIMS.add(
    "Lemma 3.3, Eq 54–56", "η → ∞ projects p onto the minimisers, ties in proportion"
)
def _projection(content: dict[str, Any]) -> Outcome:
    typical = content["typical"]
    distances = ", ".join(f"{typical[f'projection_{e}']:.2g}" for e in EXPONENTS)
    return Outcome(
        f"{random(content)}, {share(typical['ties'])} with tied minimisers",
        f"ℓ₁ distance {distances} (mean) at η·gap = " + ", ".join(map(str, EXPONENTS)),
        holds(content["violations"]["projection"]),
    )
