"""What Figures 2, 5 and 6 share: searches of Rastrigin's function, step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import qiaso_jax
from benchmarks.rastrigin.methods import HALF_WIDTH, PAPER, rastrigin

PAPER_K = PAPER["num_candidates"]
LEGEND = """\
Here *faithful* is `qiaso(**PAPER)`, with σ = 0.02 (our choice: the paper gives none),
and *working* is `minimize(..., covariance=None)`, or the same in the plane with K = 30:
centred ranks, collapse to the expectation, an annealed σ, no tunnelling.
"""
GLOBAL = 0.5
"""Losses below it belong to the global basin: other minima are above 0.99."""


def working_settings(sigma: float, num_steps: int) -> dict[str, Any]:
    """In the manner of ``minimize``, for K = 30 in the plane."""
    return {
        "num_candidates": 30,
        "sigma": optax.exponential_decay(sigma, num_steps, 1e-3),
        "eta": 5.0,
        "loss_scaling": "rank",
    }


def paper_settings(**changes: Any) -> dict[str, Any]:
    """The paper's, with changes; ``epsilon`` and ``decay`` are the tunnelling's."""
    changed = {
        name: changes.pop(name) for name in ("epsilon", "decay") & changes.keys()
    }
    return {**PAPER, "tunnelling": PAPER["tunnelling"]._replace(**changed), **changes}


def trace(
    settings: Mapping[str, Any],
    starts: Any,
    num_steps: int,
    keep: Callable[[jax.Array, jax.Array, qiaso_jax.QIASOInfo], Any],
) -> Any:
    """What ``keep(centre, candidates, info)`` returns, ``[seeds, num_steps, ...]``."""

    @jax.jit
    @jax.vmap
    def search(start, key):
        tx = qiaso_jax.qiaso(**settings, key=key)
        update: Any = tx.update

        def step(carry, _):
            x, state = carry
            seen = []

            def values_of(candidates):
                seen.append(candidates)
                return rastrigin(candidates)

            updates, state = update(None, state, x, candidates_value_fn=values_of)
            kept = keep(x, seen[0], state.info)
            return (optax.apply_updates(x, updates), state), kept

        return jax.lax.scan(step, (start, tx.init(start)), length=num_steps)[1]

    starts = jnp.asarray(starts, jnp.float32)
    keys = jax.vmap(jax.random.key)(jnp.arange(len(starts)))
    return jax.tree.map(np.asarray, search(starts, keys))


def plane_starts(number: int) -> np.ndarray:
    """Points of the square, one for each search in the plane."""
    return np.random.default_rng(0).uniform(-HALF_WIDTH, HALF_WIDTH, (number, 2))


def quartiles(values: np.ndarray, where: np.ndarray) -> list[list[float]]:
    """The quartiles over seeds of ``[seeds, steps]`` at the steps ``where``."""
    return np.percentile(values[:, where], [25, 50, 75], axis=0).tolist()


def first_to_last(num_steps: int, number: int, logarithmic: bool) -> np.ndarray:
    """At most ``number`` steps from the first to the last, by their index."""
    spaced = np.geomspace if logarithmic else np.linspace
    return np.unique(np.round(spaced(1, num_steps, number)).astype(int)) - 1
