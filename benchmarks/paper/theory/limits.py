"""Section 3.2.2: the conditions of convergence, and where it leads."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import qiaso_jax
from benchmarks.paper.section import reproduced
from benchmarks.paper.theory.claims import (
    ERRORS,
    TOLERANCE,
    Claims,
    Outcome,
    Sizes,
    difference,
    excess,
    holds,
    inequality,
    mapped,
)
from benchmarks.rastrigin.methods import DIMENSION, HALF_WIDTH, PAPER, rastrigin
from qiaso_jax import theory

DECAYS = {"a rate of 0.995": 0.995, "α = 0.995": float(np.exp(-0.995))}
"""How the paper's 0.995 can be read: per step, and in p_0 e^(−αt)."""
BARRIERS = (1, 2, 3, 4, 5)
"""Distances in units of εσ."""
EPSILON = 0.02
RATE = 1e-3
"""Of descent on Rastrigin's function: below 2 / 397, its greatest curvature."""
SINGLE = 1e-5
"""Of a relative difference in float32."""
CONVERGED = 0.999
BENEATH = 1e-3
"""How far above a local minimum a limit may lie and count as one."""

RUNS = "{runs} runs of `qiaso` on 30-D Rastrigin, never collapsing"

CLAIMS = Claims()


def measure(sizes: Sizes) -> dict[str, Any]:
    """Two readings of the schedule, Eq 59 on random paths, and a limit."""
    with jax.enable_x64(True):
        limit = converged(sizes)
    return {
        "runs": sizes.runs,
        "schedule": {name: summed(decay) for name, decay in DECAYS.items()},
        "paths": sizes.instances,
        "budget": budget_violation(sizes.instances),
        "unbounded": {str(steps): unbounded(steps) for steps in (10, 100, 1000)},
        "draws": sizes.draws // 10,
        "drift": drift(sizes.draws // 10),
        "limit": limit,
    }


def summed(decay: float) -> dict[str, Any]:
    """The expected number of jumps for ever (A4), and what they can cross."""
    p_t = decay ** np.arange(20_000)
    escapes = theory.escape_probability(np.array(BARRIERS, float), 1.0, 1.0)
    return {
        "closed_form": float(theory.total_tunnelling_probability(1.0, -np.log(decay))),
        "sum": float(p_t.sum()),
        "crossed_ever": [
            float(theory.cumulative_escape_probability(p_t, escape))
            for escape in escapes
        ],
    }


def budget_violation(paths: int, steps: int = 50) -> float:
    """By how much Σ a_t exceeds its budget (Eq 59, telescoped) on random paths."""
    rng = np.random.default_rng(0)
    a, waste = rng.exponential(size=(2, paths, steps))
    b = rng.exponential(size=(paths, steps)) * 0.9 ** np.arange(steps)
    noise = rng.normal(size=(paths, steps))
    waste *= rng.integers(0, 2, waste.shape)
    x = 5 + np.cumsum(b + noise - a - waste, axis=1)
    lowest = np.minimum(x.min(1), 5.0)
    first = np.full(paths, 5.0)
    budgets = [
        mapped(theory.robbins_siegmund_budget, first, last, b, noise)
        for last in (x[:, -1], lowest)
    ]
    return max(np.max(excess(a.sum(1), budget)) for budget in budgets)


def unbounded(steps: int) -> float:
    """Σ a_t of X_t = −t, a_t = 1, b_t = ζ_t = 0, which obeys Eq 59 as printed."""
    zeros = np.zeros(steps)
    return float(theory.robbins_siegmund_budget(0.0, -float(steps), zeros))


def drift(draws: int) -> dict[str, list[float]]:
    """E Δ of a jump on Rastrigin's function, with its standard error."""
    rng = np.random.default_rng(0)
    jumps = EPSILON * rng.normal(size=(draws, DIMENSION))
    anywhere = rng.uniform(-HALF_WIDTH, HALF_WIDTH, jumps.shape)
    places = {"at the minimum": np.zeros_like(jumps), "anywhere": anywhere}
    changes = {
        name: rastrigin(x + jumps, np) - rastrigin(x, np) for name, x in places.items()
    }
    return {
        name: [change.mean(), change.std() / np.sqrt(draws)]
        for name, change in changes.items()
    }


def converged(sizes: Sizes) -> dict[str, list[float]]:
    """Where the amplitudes end on Rastrigin's function, and what lies beneath.

    Under the conditions of Theorem 3.2: α_t grows without end, Σ p_t is finite, and the
    K candidates are never replaced.
    """
    tunnelling = qiaso_jax.gaussian_tunnelling(EPSILON, 1.0, 0.9)
    settings = {**PAPER, "sigma": 1.0, "tunnelling": tunnelling}
    settings["collapse_every"] = 10 * sizes.steps

    def end(start, key):
        tx = qiaso_jax.qiaso(**settings, key=key)
        update: Any = tx.update

        def step(state, _):
            return update(None, state, start, value_fn=rastrigin)[1], None

        state = jax.lax.scan(step, tx.init(start), length=sizes.steps)[0]
        candidates = start[None] + state.candidates
        losses = rastrigin(candidates)
        best = candidates[jnp.argmin(losses)]
        on_best = jnp.exp(state.log_amplitudes[jnp.argmin(losses)])
        return on_best, losses.min(), rastrigin(downhill(best))

    rng = np.random.default_rng(0)
    starts = jnp.asarray(rng.uniform(-HALF_WIDTH, HALF_WIDTH, (sizes.runs, DIMENSION)))
    keys = jax.random.split(jax.random.key(1), sizes.runs)
    results = jax.jit(jax.vmap(end))(starts, keys)
    names = ("probability", "loss", "local_minimum")
    return {k: np.asarray(v).tolist() for k, v in zip(names, results, strict=True)}


def downhill(x: jax.Array) -> jax.Array:
    """The local minimum that gradient descent finds from ``x``."""

    def step(x, _):
        return x - RATE * jax.grad(rastrigin)(x), None

    return jax.lax.scan(step, x, length=2000)[0]


@CLAIMS.add("A4", "Σ p_t is finite")
def _sum(content: dict[str, Any]) -> Outcome:
    each = content["schedule"].values()
    off = [difference(one["sum"], one["closed_form"]) for one in each]
    jumps = content["schedule"]["a rate of 0.995"]["closed_form"]
    return Outcome(
        "closed form p_0/(1 − e^(−α)) against 20,000 terms, p_0 = 1",
        f"{jumps:.4g} jumps per candidate in all",
        reproduced(max(off) < SINGLE, "wrong"),
    )


@CLAIMS.add(
    "A4 against section 4.5",
    "tunnelling maintains ergodicity, local minima are overcome",
)
def _ergodicity(content: dict[str, Any]) -> Outcome:
    crossed = content["schedule"]["a rate of 0.995"]["crossed_ever"]
    certain = crossed[-1] >= 1 - TOLERANCE
    return Outcome(
        "cumulative escape (Eq 70, exact) over all time, decay rate 0.995",
        f"a barrier of {', '.join(map(str, BARRIERS[2:]))} εσ is ever crossed with "
        f"probability {', '.join(f'{p:.2g}' for p in crossed[2:])}"
        + ("" if certain else ": a finite Σ p_t rules out certain escape"),
        reproduced(certain, "contradictory"),
    )


@CLAIMS.add(
    "Section 4.1 against Figure 3",
    "the decay is 0.995 per step, and α = 0.995 in p_0 e^(−αt)",
)
def _readings(content: dict[str, Any]) -> Outcome:
    rate, alpha = (one["closed_form"] for one in content["schedule"].values())
    return Outcome(
        "Σ p_t under each reading",
        f"{rate:.4g} jumps per candidate, or {alpha:.3g}",
        reproduced(bool(np.isclose(rate, alpha)), "contradictory"),
    )


@CLAIMS.add("Eq 59 where X is bounded below", "Σ a_t is finite (Robbins–Siegmund)")
def _budget(content: dict[str, Any]) -> Outcome:
    return Outcome(
        f"telescoped budget on {content['paths']:,} random paths",
        inequality(content["budget"]),
        holds(content["budget"]),
    )


@CLAIMS.add("Eq 59", "the printed conditions make Σ a_t finite")
def _unbounded(content: dict[str, Any]) -> Outcome:
    sums = content["unbounded"]
    grows = max(sums.values()) > min(sums.values())
    return Outcome(
        "X_t = −t, a_t = 1, b_t = ζ_t = 0",
        f"Σ a_t = {', '.join(f'{x:g}' for x in sums.values())} after "
        f"{', '.join(sums)} steps" + (": X must be bounded below" if grows else ""),
        reproduced(not grows, "wrong"),
    )


@CLAIMS.add("Eq 57, A5", "a jump changes the loss by 0 in the mean")
def _drift(content: dict[str, Any]) -> Outcome:
    drift = content["drift"]
    biased = any(abs(mean) > ERRORS * error for mean, error in drift.values())
    return Outcome(
        f"{content['draws']:,} jumps, 30-D Rastrigin, ε = {EPSILON}, σ = 1",
        "; ".join(f"{mean:.3g} ± {e:.1g} {name}" for name, (mean, e) in drift.items()),
        reproduced(not biased, "wrong"),
    )


@CLAIMS.add(
    "Theorem 3.2", "α_t → ∞ and Σ p_t < ∞ put all probability on the best candidates"
)
def _limit(content: dict[str, Any]) -> Outcome:
    least = min(content["limit"]["probability"])
    return Outcome(
        RUNS.format(**content),
        f"share of it on the best of the K at the end: at least {least:.6g}",
        reproduced(least >= CONVERGED),
    )


@CLAIMS.add("Abstract, Theorem 3.2", "almost-sure convergence to local optima")
def _local_optima(content: dict[str, Any]) -> Outcome:
    loss, beneath = (content["limit"][key] for key in ("loss", "local_minimum"))
    return Outcome(
        RUNS.format(**content) + "; then gradient descent from the limit",
        f"the limit's loss is {np.median(loss):.3g} (median), the local minimum "
        f"beneath it {np.median(beneath):.3g}",
        reproduced(np.subtract(loss, beneath).min() <= BENEATH, "wrong"),
    )
