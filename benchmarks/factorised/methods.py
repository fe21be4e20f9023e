"""Searches with a superposition of every element, and what an update costs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import qiaso_jax
from benchmarks.factorised.network import NUM_VALUES
from benchmarks.rastrigin.methods import (
    DIMENSION,
    SIGMA,
    WORKING_SIGMA,
    Run,
    minimised,
    rastrigin,
    transformed,
)

ROTATION_SEED = 0
LAST_SIGMA = 1e-4

EXACT: dict[str, Any] = {"num_candidates": 30, "eta": 3.0}
BEST: dict[str, Any] = {"num_candidates": 31, "collapse": "best"}
MEASURED: dict[str, Any] = {"num_candidates": 50, "eta": 5.0, "loss_scaling": "rank"}


def rotated_rastrigin(x: jax.Array) -> jax.Array:
    """Rastrigin's function of Q x, for a fixed random orthogonal matrix Q."""
    rng = np.random.default_rng(ROTATION_SEED)
    normal = rng.standard_normal((DIMENSION, DIMENSION))
    rotation = jnp.asarray(np.linalg.qr(normal)[0], x.dtype)
    return rastrigin(jnp.dot(rotation, x, precision=jax.lax.Precision.HIGHEST))


FUNCTIONS = {"Rastrigin": rastrigin, "rotated Rastrigin": rotated_rastrigin}


def searches(
    fun: Callable[[jax.Array], jax.Array], budget: int, starts: np.ndarray
) -> Iterator[Run]:
    """Every method on one function at one budget."""
    measured = MEASURED | {"num_measurements": max(100, budget // 600)}
    yield factorised("exact, expectation", fun, budget, starts, SIGMA, EXACT)
    yield factorised("exact, best", fun, budget, starts, SIGMA, BEST)
    yield factorised(
        "measured, expectation", fun, budget, starts, WORKING_SIGMA, measured
    )
    yield minimised("whole vectors, minimize", budget, starts, fun, covariance=None)


def factorised(
    method: str,
    fun: Callable[[jax.Array], jax.Array],
    budget: int,
    starts: np.ndarray,
    sigma: float,
    settings: dict[str, Any],
) -> Run:
    """``factorised_qiaso`` on elements, σ annealed geometrically from ``sigma``."""
    population = evaluations_per_step(DIMENSION, **settings)
    steps = budget // population
    make = partial(
        qiaso_jax.factorised_qiaso,
        sigma=optax.exponential_decay(sigma, steps, LAST_SIGMA / sigma),
        **settings,
    )
    settings = settings | {"sigma": [sigma, LAST_SIGMA]}
    return transformed(method, settings, make, budget, population, starts, fun)


def evaluations_per_step(
    num_blocks: int,
    num_candidates: int,
    num_measurements: int | None = None,
    **_: Any,
) -> int:
    """How often ``factorised_qiaso`` evaluates the loss in one update."""
    return num_measurements or num_candidates * num_blocks


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one update costs on Rastrigin's function."""

    method: str
    num_weights: int
    evaluations: int
    seconds: float
    """The least of some runs, compiled."""


def cost(num_weights: int, num_measurements: int | None, repeats: int = 3) -> Cost:
    """Times one update on elements, 300 evaluations at a time."""
    settings: dict[str, Any] = {
        "num_candidates": NUM_VALUES,
        "num_measurements": num_measurements,
    }
    tx: Any = qiaso_jax.factorised_qiaso(**settings, candidate_batch_size=300)
    x = jnp.ones(num_weights)
    state = tx.init(x)
    step = jax.jit(lambda state, x: tx.update(None, state, x, value_fn=rastrigin))
    jax.block_until_ready(step(state, x))
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(step(state, x))
        seconds.append(time.perf_counter() - began)
    return Cost(
        method="measured" if num_measurements else "exact",
        num_weights=num_weights,
        evaluations=evaluations_per_step(num_weights, **settings),
        seconds=min(seconds),
    )
