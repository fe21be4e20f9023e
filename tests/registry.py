"""Every optimizer, as the tests of what all of them keep to see it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import pytest

from qiaso_jax import PAPER, factorised_qiaso, node_qiaso, qiaso

X = jax.random.normal(jax.random.key(0), (16, 3))
Y = jnp.tanh(X @ jnp.array([1.0, -2.0, 0.5]))
PARAMS = {"w": jnp.array([0.3, 0.1, -0.2]), "b": jnp.float32(0.7)}


def losses(params, x, y):
    """Of each example."""
    output = jnp.tanh(x @ params["w"] + params["b"]) - y
    return jnp.real(output * jnp.conj(output))


def mean_loss(params, x, y):
    return jnp.mean(losses(params, x, y))


class Entry(NamedTuple):
    constructor: Callable[..., Any]
    settings: dict[str, Any]
    value_fn: Callable[..., Any] = mean_loss

    def make(self, **settings):
        return self.constructor(**{**self.settings, **settings})


SMALL = {"num_candidates": 8, "sigma": 0.1}
REGISTRY = {
    "qiaso": Entry(qiaso, SMALL),
    "chunked": Entry(qiaso, SMALL | {"num_candidates": 7, "candidate_batch_size": 3}),
    "PAPER": Entry(qiaso, {**PAPER, "num_candidates": 6, "collapse_every": 2}),
    "factorised, exact": Entry(
        factorised_qiaso, SMALL | {"num_candidates": 5, "collapse_every": 2}
    ),
    "factorised, measured": Entry(
        factorised_qiaso,
        SMALL | {"num_measurements": 12, "collapse": "sample", "granularity": "leaf"},
    ),
    "node": Entry(node_qiaso, SMALL | {"optimizer": optax.sgd(0.1)}, losses),
    "node, exponential": Entry(
        node_qiaso,
        SMALL | {"eta": 1.0, "examples": 1.0, "optimizer": optax.adam(0.1)},
        losses,
    ),
}
EVALUATES_PARAMETERS = [name for name in REGISTRY if not name.startswith("node")]
every_optimizer = pytest.mark.parametrize("name", REGISTRY)
one_of_each = pytest.mark.parametrize("name", ["qiaso", "factorised, measured", "node"])


def steps(tx, value_fn, params=PARAMS, num_steps=4, x=X, y=Y):
    """Parameters and state after some steps, compiled as one."""

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(None, state, params, value_fn=value_fn, x=x, y=y)
        return (optax.apply_updates(params, updates), state), None

    return jax.jit(lambda c: jax.lax.scan(step, c, length=num_steps)[0])(
        (params, tx.init(params))
    )
