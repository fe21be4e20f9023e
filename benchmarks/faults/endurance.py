"""A million steps: what drifts, and what grows."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

import qiaso_jax
from benchmarks.harness.stopwatch import Stopwatch

OPTIMUM = (1.0, -2.0)
MEBIBYTE = 2**20

METHODS: dict[str, Any] = {
    "qiaso": partial(qiaso_jax.qiaso, 8, collapse_every=10),
    "factorised_qiaso": partial(qiaso_jax.factorised_qiaso, 4, collapse_every=10),
    "node_qiaso": partial(qiaso_jax.node_qiaso, 8, examples=1.0),
}


def losses(x: jax.Array, targets: jax.Array) -> jax.Array:
    """The squared distance to each of the targets."""
    return jnp.sum((x[None] - targets) ** 2, axis=-1)


def loss(x: jax.Array, targets: jax.Array) -> jax.Array:
    """Their mean."""
    return jnp.mean(losses(x, targets))


def endured(name: str, num_steps: int, num_calls: int) -> dict[str, Any]:
    """So many steps in one ``lax.scan``, and so many calls of a compiled step.

    Returns:
      Of the scan the seconds, the count of steps in the state, the largest
      |log Σ p| of all steps, and the distance to the optimum at the end and, as the
      worst, of the last nine tenths. Of the calls the growth of memory in MiB, after a
      tenth of them.
    """
    tx = METHODS[name](sigma=0.01, optimizer=optax.adam(0.01))
    targets = jnp.array([OPTIMUM, OPTIMUM])
    value_fn = losses if name == "node_qiaso" else loss

    def step(carry, number):
        x, state, unnormalised, worst = carry
        updates, state = tx.update(None, state, x, value_fn=value_fn, targets=targets)
        x = optax.apply_updates(x, updates)
        log_p = optax.tree.get(state, "log_amplitudes", jnp.zeros(1))
        total = jnp.max(jnp.abs(jax.nn.logsumexp(log_p, axis=-1)))
        away = jnp.where(number < num_steps // 10, 0, distance(x))
        carry = (x, state, jnp.maximum(unnormalised, total), jnp.maximum(worst, away))
        return carry, None

    def distance(x):
        return jnp.linalg.norm(x - targets[0])

    x = jnp.zeros(2)
    start = (x, tx.init(x), jnp.zeros(()), jnp.zeros(()))
    many = jax.jit(lambda c: jax.lax.scan(step, c, jnp.arange(num_steps))[0])
    many = many.lower(start).compile()
    watch = Stopwatch()
    end = jax.block_until_ready(many(start))
    seconds = watch.read()[0]
    x, state, unnormalised, worst = end

    one = jax.jit(lambda c: step(c, 0)[0])
    carry, before = start, 0
    for number in range(num_calls):
        carry = jax.block_until_ready(one(carry))
        if number == num_calls // 10:
            before = resident()
    growth = resident() - before
    return {
        "method": name,
        "steps": num_steps,
        "seconds": round(seconds, 1),
        "step": int(optax.tree.get(state, "step")),
        "unnormalised": float(unnormalised),
        "distance": float(distance(x)),
        "worst_distance": float(worst),
        "calls": num_calls,
        "growth": growth / MEBIBYTE,
    }


def resident() -> int:
    """Bytes of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
