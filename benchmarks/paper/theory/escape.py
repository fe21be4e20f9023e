"""Section 3.2.3, jumps across a barrier, and the gate T(θ) of section 2, measured."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

import qiaso_jax
from benchmarks.paper.theory.claims import Sizes, mapped
from qiaso_jax import theory

BARRIERS = (0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
"""Δ in units of εσ."""
CURVE = np.linspace(0.02, 5, 100)
"""The same, for the figure."""
NORM_WEIGHTS = (1, 2, 3, 10, 30)
NORM_BARRIER = 2.0
CHUNK = 50_000
"""Jumps in memory at a time."""
CUMULATIVE_STEPS = 100
CUMULATIVE_BARRIER = 3.0
GATE_LOSSES = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
GATE_DRAWS = 2000


def measure(sizes: Sizes) -> dict[str, Any]:
    """Simulated, exact and printed probabilities; the gate over the loss."""
    with jax.enable_x64(True):
        probabilities = mapped(printed, np.array(BARRIERS))
        return {
            "draws": sizes.draws,
            "barriers": [
                barrier(z, sizes.draws, {k: v[i] for k, v in probabilities.items()})
                for i, z in enumerate(BARRIERS)
            ],
            "curve": {"z": CURVE} | mapped(printed, CURVE),
            "crossing": scipy.optimize.brentq(jax.jit(eq69_excess), 0.1, 3.0),
            "norms": norms(sizes.draws),
            "cumulative": cumulative(sizes.draws // 10),
            "gate": {
                "loss": GATE_LOSSES,
                "as_printed": jump_lengths("as_printed"),
                "as_described": jump_lengths("as_described"),
            },
        }


def estimate(count: int, draws: int) -> dict[str, float]:
    """A share of draws, with its standard error."""
    p = count / draws
    return {"simulated": p, "error": float(np.sqrt(p * (1 - p) / draws))}


def printed(z: Any) -> dict[str, jax.Array]:
    """The exact probability and the bounds for a barrier of z standard deviations."""
    lower, upper = theory.escape_probability_bounds(z, 1.0, 1.0)
    return {
        "exact": theory.escape_probability(z, 1.0, 1.0),
        "lower": lower,
        "upper": upper,
        "eq68": theory.chernoff_bound(z, 1.0, 1.0),
        "eq69": theory.escape_probability_as_printed(z, 1.0, 1.0),
    }


def eq69_excess(z: Any) -> jax.Array:
    """By how much Eq 69 exceeds the exact probability."""
    probabilities = printed(z)
    return probabilities["eq69"] - probabilities["exact"]


def barrier(z: float, draws: int, probabilities: dict[str, float]) -> dict[str, float]:
    """One coordinate against a barrier of z standard deviations (Eq 67–69)."""
    rng = np.random.default_rng(round(100 * z))
    crossed = int(np.sum(rng.normal(size=draws) >= z))
    exact = probabilities["exact"]
    away = (crossed / draws - exact) / np.sqrt(exact * (1 - exact) / draws)
    return estimate(crossed, draws) | {"z": z, "errors_away": away} | probabilities


def norms(draws: int) -> list[dict[str, float]]:
    """The length of jumps, and their reach along one direction, by their weights."""
    exact = mapped(
        lambda n: theory.norm_escape_probability(NORM_BARRIER, 1.0, 1.0, n),
        np.array(NORM_WEIGHTS, float),
    )
    eq68 = float(theory.chernoff_bound(NORM_BARRIER, 1.0, 1.0))
    rows = []
    for n, probability in zip(NORM_WEIGHTS, exact, strict=True):
        longer, crossed = jumps_across(n, draws)
        row = {"n": n, "exact": probability, "eq68": eq68, "crossed": crossed / draws}
        rows.append(estimate(longer, draws) | row)
    return rows


def jumps_across(n: int, draws: int) -> tuple[int, int]:
    """How many jumps of n weights are long enough, and go far enough one way."""
    rng = np.random.default_rng(n)
    longer = crossed = 0
    for first in range(0, draws, CHUNK):
        jumps = rng.normal(size=(min(CHUNK, draws - first), n))
        longer += int(np.sum(np.square(jumps).sum(1) >= NORM_BARRIER**2))
        crossed += int(np.sum(jumps[:, 0] >= NORM_BARRIER))
    return longer, crossed


def cumulative(runs: int) -> dict[str, float]:
    """Escape within some steps (Eq 70), with the exact probability and with Eq 69."""
    rng = np.random.default_rng(7)
    p_t = 0.995 ** np.arange(CUMULATIVE_STEPS)
    escaped = np.zeros(runs, bool)
    for probability in p_t:
        jumped = rng.random(runs) < probability
        escaped |= jumped & (rng.normal(size=runs) >= CUMULATIVE_BARRIER)
    exact, with_eq69 = (
        float(theory.cumulative_escape_probability(p_t, f(CUMULATIVE_BARRIER, 1, 1)))
        for f in (theory.escape_probability, theory.escape_probability_as_printed)
    )
    found = {"runs": runs, "exact": exact, "with_eq69": with_eq69}
    return estimate(int(escaped.sum()), runs) | found


def jump_lengths(kind: Any) -> np.ndarray:
    """The root mean square of jumps at ``GATE_LOSSES``, which is 1 without a gate."""
    log_p = jnp.log(jnp.array([0.9, 0.1]))  # only the second one may jump
    keys = jax.random.split(jax.random.key(0), GATE_DRAWS)
    tunnelling = qiaso_jax.gaussian_tunnelling(1.0, gate=kind)

    def jump(key, loss):
        candidates, losses = jnp.zeros((2, 30)), jnp.array([0.0, loss])
        return tunnelling.jump(key, jnp.array(0), candidates, log_p, losses)[0][1]

    def length(loss):
        jumps = jax.vmap(jump, (0, None))(keys, loss)
        return jnp.sqrt(jnp.mean(jnp.square(jumps)))

    return np.asarray(jax.jit(jax.vmap(length))(np.array(GATE_LOSSES)))
