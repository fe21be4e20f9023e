"""Section 3.2.3, jumps across a barrier, and the gate T(θ) of section 2, measured."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

import qiaso_jax
from benchmarks.paper.theory.findings import Sizes
from qiaso_jax import theory

BARRIERS = (0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
"""Δ in units of εσ."""
CURVE = np.linspace(0.02, 5, 100)
"""The same, for the figure."""
EPSILON, SIGMA = 0.02, 1.0
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
        return {
            "draws": sizes.draws,
            "barriers": [barrier(z, sizes.draws) for z in BARRIERS],
            "curve": {"z": CURVE.tolist()}
            | {name: np.asarray(x).tolist() for name, x in printed(CURVE).items()},
            "crossing": scipy.optimize.brentq(eq69_excess, 0.1, 3.0),
            "norms": [norm(n, sizes.draws) for n in NORM_WEIGHTS],
            "cumulative": cumulative(sizes.draws // 10),
            "gate": gate(),
        }


def estimate(count: int, draws: int) -> dict[str, float]:
    """A share of draws, with its standard error."""
    p = count / draws
    return {"simulated": p, "error": float(np.sqrt(p * (1 - p) / draws))}


def printed(z: Any) -> dict[str, Any]:
    """The exact probability and the bounds for barriers of z standard deviations."""
    arguments = (z * EPSILON * SIGMA, EPSILON, SIGMA)
    lower, upper = theory.escape_probability_bounds(*arguments)
    return {
        "exact": theory.escape_probability(*arguments),
        "lower": lower,
        "upper": upper,
        "eq68": theory.chernoff_bound(*arguments),
        "eq69": theory.escape_probability_as_printed(*arguments),
    }


def eq69_excess(z: float) -> float:
    """By how much Eq 69 exceeds the exact probability."""
    values = printed(z)
    return float(values["eq69"] - values["exact"])


def barrier(z: float, draws: int) -> dict[str, float]:
    """One coordinate against a barrier of z standard deviations (Eq 67–69)."""
    rng = np.random.default_rng(round(100 * z))
    crossed = EPSILON * rng.normal(0, SIGMA, draws) >= z * EPSILON * SIGMA
    probabilities = {name: float(value) for name, value in printed(z).items()}
    exact = probabilities["exact"]
    away = (crossed.mean() - exact) / np.sqrt(exact * (1 - exact) / draws)
    return (
        estimate(int(crossed.sum()), draws)
        | {"z": z, "errors_away": float(away)}
        | probabilities
    )


def norm(n: int, draws: int) -> dict[str, float]:
    """The length of a jump of n weights, and its reach along one direction."""
    rng = np.random.default_rng(n)
    longer = crossed = 0
    for first in range(0, draws, CHUNK):
        jumps = rng.normal(0, SIGMA, (min(CHUNK, draws - first), n))
        longer += int(np.sum(np.square(jumps).sum(1) >= NORM_BARRIER**2))
        crossed += int(np.sum(jumps[:, 0] >= NORM_BARRIER))
    arguments = (NORM_BARRIER, 1.0, SIGMA)
    return estimate(longer, draws) | {
        "n": n,
        "exact": float(theory.norm_escape_probability(*arguments, n)),
        "eq68": float(theory.chernoff_bound(*arguments)),
        "crossed": crossed / draws,
    }


def cumulative(runs: int) -> dict[str, float]:
    """Escape within some steps (Eq 70), with the exact probability and with Eq 69."""
    rng = np.random.default_rng(7)
    p_t = 0.995 ** np.arange(CUMULATIVE_STEPS)
    escaped = np.zeros(runs, bool)
    for probability in p_t:
        jumped = rng.random(runs) < probability
        escaped |= jumped & (rng.normal(size=runs) >= CUMULATIVE_BARRIER)
    arguments = (CUMULATIVE_BARRIER, 1.0, 1.0)
    one = theory.escape_probability(*arguments)
    printed = theory.escape_probability_as_printed(*arguments)
    return estimate(int(escaped.sum()), runs) | {
        "runs": runs,
        "exact": float(theory.cumulative_escape_probability(p_t, one)),
        "with_eq69": float(theory.cumulative_escape_probability(p_t, printed)),
    }


def gate() -> dict[str, list[float]]:
    """The root mean square of jumps over the loss, without a gate 1 (α = γ = ε = 1)."""
    log_p = jnp.log(jnp.array([0.9, 0.1]))  # only the second one may jump
    keys = jax.random.split(jax.random.key(0), GATE_DRAWS)

    def length(kind, loss):
        tunnelling = qiaso_jax.gaussian_tunnelling(1.0, gate=kind)

        def jump(key):
            return tunnelling.jump(
                key, jnp.array(0), jnp.zeros((2, 30)), log_p, jnp.array([0.0, loss])
            )[0][1]

        return jnp.sqrt(jnp.mean(jnp.square(jax.vmap(jump)(keys))))

    losses = np.array(GATE_LOSSES)
    lengths = {
        kind: np.asarray(jax.jit(jax.vmap(lambda x, k=kind: length(k, x)))(losses))
        for kind in ("as_printed", "as_described")
    }
    return {"loss": losses.tolist()} | {k: v.tolist() for k, v in lengths.items()}
