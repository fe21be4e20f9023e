r"""The variance of the pseudo-gradient of a linear loss, by simulation.

An antithetic pair ±z estimates the gradient g of ⟨g, θ⟩ by ⟨g, z⟩ z, which is unbiased;
its variance, summed over the weights, is E ⟨g, z⟩² |z|² − |g|².
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import qiaso_jax

AT_A_TIME = 64
"""Directions that exist together."""


def simulated(directions: Any, shape: tuple[int, ...], draws: int) -> np.ndarray:
    """Squared errors of estimates in units of |g|², shape ``[draws]``.

    Their mean is the variance; g is normal.
    """
    gradient = jax.random.normal(jax.random.key(0), shape)
    zeros = jnp.zeros(shape)

    @jax.jit
    def errors(key: jax.Array) -> jax.Array:
        tx = qiaso_jax.qiaso(2 * AT_A_TIME, 1.0, directions=directions, key=key)
        # The first half are +z, around a centre of zero.
        z = qiaso_jax.ask(tx, tx.init(zeros), zeros)[:AT_A_TIME]
        slopes = jnp.tensordot(z, gradient, axes=len(shape))
        axes = tuple(range(1, z.ndim))
        estimates = slopes.reshape(-1, *[1] * len(shape)) * z
        return jnp.sum((estimates - gradient[None]) ** 2, axis=axes)

    norm = float(jnp.sum(gradient**2))
    keys = jax.random.split(jax.random.key(1), -(-draws // AT_A_TIME))
    found = [np.asarray(errors(key), np.float64) for key in keys]
    return np.concatenate(found)[:draws] / norm


def row(directions: Any, shape: tuple[int, ...], draws: int) -> dict[str, float]:
    """The variance of a pair, and the standard error of that."""
    errors = simulated(directions, shape, draws)
    return {
        "variance": float(errors.mean()),
        "standard_error": float(errors.std(ddof=1) / np.sqrt(draws)),
    }
