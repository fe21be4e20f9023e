"""Simulations that die between ``ask`` and ``tell``, and functions with holes."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import qiaso_jax

DIMENSION = 10
START = 3.0
NUM_CANDIDATES = 30
NUM_STEPS = 100
BUDGET = 12_000
SHARES = (0.0, 0.1, 0.5, 0.9)
STRIPES = 1000.0
"""Of a function with holes, along the sum of the coordinates, in a unit of it."""

OUTLIERS: dict[str, Any] = {"1e300": 1e300, "2**2000, a Python integer": 2**2000}

METHODS: dict[str, Any] = {
    "qiaso": partial(qiaso_jax.qiaso, NUM_CANDIDATES),
    "factorised_qiaso": partial(
        qiaso_jax.factorised_qiaso, NUM_CANDIDATES, num_measurements=NUM_CANDIDATES
    ),
}


def sphere(x: Any, xp: Any = jnp) -> Any:
    """The sum of squares over the last axis."""
    return xp.sum(xp.square(x), axis=-1)


def asked_and_told(name: str, seeds: int) -> list[dict[str, Any]]:
    """Searches in which some simulations die, or return a wrong number.

    What is left is told in a random order; the value is that of the centre at the end.
    """
    faults = {"nothing": (None, 0.0)}
    faults |= {f"{share:.0%} of simulations die": (None, share) for share in SHARES[1:]}
    faults |= {
        f"{said}, 1 % of losses": (value, 0.01) for said, value in OUTLIERS.items()
    }
    # One for all: each is compiled anew.
    tx = METHODS[name](sigma=0.1, optimizer=optax.adam(0.1))
    return [
        {"method": f"ask and tell, {name}", "injected": injected}
        | _by_field([search(tx, *fault, seed) for seed in range(seeds)])
        for injected, fault in faults.items()
    ]


def search(tx: Any, value: Any, share: float, seed: int) -> dict[str, Any]:
    """One of them; ``value`` is told in place of a loss, ``None`` for nothing."""
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.uniform(-START, START, DIMENSION), jnp.float32)
    state = tx.init(x)
    hits = nonfinite = 0
    for _ in range(NUM_STEPS):
        candidates = np.asarray(qiaso_jax.ask(tx, state, x), np.float64)
        losses: list[Any] = sphere(candidates, np).tolist()
        hit = rng.random(len(losses)) < share
        order = rng.permutation(len(losses))
        if value is None:
            order = order[~hit[order]]
        told = [value if hit[k] else losses[k] for k in order]
        updates, state = qiaso_jax.tell(tx, state, x, told, indices=order)
        x = optax.apply_updates(x, updates)
        hits += int(hit.sum())
        nonfinite += int(optax.tree.get(state, "num_nonfinite"))
    return {
        "hits": hits,
        "nonfinite": nonfinite,
        "skipped": int(optax.tree.get(state, "num_skipped")),
        "value": float(sphere(np.asarray(x, np.float64), np)),
    }


def minimised(seeds: int) -> list[dict[str, Any]]:
    """``minimize`` on functions that are NaN in a share of all space, in stripes."""

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None))
    @partial(jax.vmap, in_axes=(None, 0))
    def result(share: jax.Array, key: jax.Array) -> dict[str, jax.Array]:
        def fun(x):
            hole = jnp.mod(STRIPES * jnp.sum(x), 1.0) < share
            return jnp.where(hole, jnp.nan, sphere(x))

        start = jnp.full(DIMENSION, START)
        found = qiaso_jax.minimize(
            fun,
            start,
            sigma=START,
            max_evaluations=BUDGET,
            covariance=None,
            key=key,
        )
        steps = jnp.arange(len(found.history.num_nonfinite)) < found.nit
        nonfinite = jnp.sum(found.history.num_nonfinite * steps)
        return {
            "nonfinite": nonfinite,
            "skipped": found.history.num_skipped[-1],
            "value": found.fun,
        }

    found = result(jnp.array(SHARES), jnp.arange(seeds))
    found = jax.tree.map(lambda x: x.tolist(), found)
    return [
        {
            "method": "minimize",
            "injected": f"NaN in {share:.0%} of space" if share else "nothing",
        }
        | {field: values[i] for field, values in found.items()}
        for i, share in enumerate(SHARES)
    ]


def _by_field(records: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {field: [each[field] for each in records] for field in records[0]}
