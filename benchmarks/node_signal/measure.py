"""Cosines between node-space pseudo-gradients and back-propagated gradients.

With linear weights (η = 0) an estimate from many pairs is the mean of estimates from
few, so the many are measured by repeating one compiled step of few.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import qiaso_jax
from benchmarks.harness import networks
from benchmarks.harness.networks import Batch, Network
from qiaso_jax.node_space.examples import telling_examples

FRACTION = 4
"""One in so many examples gets candidates where examples are drawn."""


class Selection(NamedTuple):
    """Which examples of a minibatch get candidates, and which of their nodes noise.

    ``examples`` is "all", "uniform" (drawn with equal chances) or "telling" (drawn as
    ``node_qiaso`` draws them).
    """

    examples: Literal["all", "uniform", "telling"]
    reactive_only: bool

    @property
    def name(self) -> str:
        return f"{self.examples} examples, " + (
            "reactive nodes" if self.reactive_only else "all nodes"
        )

    def forwards(self, pairs: int) -> float:
        """Forward passes per example of the minibatch, with those without noise."""
        if self.examples == "all":
            return 1 + 2 * pairs
        return (self.examples == "telling") + (1 + 2 * pairs) / FRACTION


SELECTIONS = tuple(
    Selection(examples, reactive_only)
    for examples in ("all", "uniform", "telling")
    for reactive_only in (False, True)
)


def draw_examples(
    selection: Selection, key: jax.Array, losses: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Indices of the examples with candidates, and their weights in the mean loss."""
    size = losses.shape[0]
    if selection.examples == "all":
        return jnp.arange(size), jnp.ones(size)
    count = size // FRACTION
    if selection.examples == "uniform":
        return jax.random.permutation(key, size)[:count], jnp.ones(count)
    rows, share = telling_examples(key, losses, count)
    return rows, share * count


class Cosines(NamedTuple):
    """``values`` at each number of pairs, and ``limit`` at infinitely many.

    The limit is the cosine of the back-propagated gradient on the examples drawn. Each
    maps the path of a kernel to numbers.
    """

    loss: float
    values: dict[str, list[float]]
    limit: dict[str, float]


class Meter:
    """Measures one network; what it compiles serves all its parameters and keys."""

    def __init__(self, network: Network, sigma: float):
        self._network = network
        self._sigma = sigma
        self._losses = jax.jit(self.losses)
        self._gradient = jax.jit(
            jax.grad(lambda p, **data: self.losses(p, **data).mean())
        )
        self._repeated = jax.jit(self._mean, static_argnums=(0, 1))

    def losses(
        self, params: Any, batch_stats: Any, batch: Batch, weights: jax.Array
    ) -> jax.Array:
        """Cross-entropy times weight of each example, with stored statistics."""
        logits, _ = self._network.apply(params, batch_stats, batch.images, False)
        return weights * networks.cross_entropy(logits, batch.labels)

    def estimate(
        self, pairs: int, reactive_only: bool, key: jax.Array, params: Any, **data: Any
    ) -> Any:
        """The pseudo-gradient of ``losses`` from so many pairs per example."""
        few = max(n for n in range(1, 5) if pairs % n == 0)
        return self._repeated(few, reactive_only, pairs // few, key, params, **data)

    def _mean(
        self,
        pairs: int,
        reactive_only: bool,
        repeats: int,
        key: jax.Array,
        params: Any,
        **data: Any,
    ) -> Any:
        tx = qiaso_jax.node_qiaso(
            2 * pairs,
            self._sigma,
            eta=0.0,
            optimizer=optax.sgd(1.0),
            examples=1.0,
            reactive_only=reactive_only,
            batch_argnames=("batch", "weights"),
            key=key,
        )
        update: Any = tx.update

        def step(_: Any, carry: Any) -> Any:
            total, state = carry
            updates, state = update(None, state, params, value_fn=self.losses, **data)
            return jax.tree.map(jnp.subtract, total, updates), state

        start = (jax.tree.map(jnp.zeros_like, params), tx.init(params))
        total, _ = jax.lax.fori_loop(0, repeats, step, start)
        return jax.tree.map(lambda x: x / repeats, total)

    def cosines(
        self,
        selection: Selection,
        pairs: Sequence[int],
        key: jax.Array,
        batch: Batch,
        params: Any,
        batch_stats: Any,
    ) -> Cosines:
        """Cosines to the gradient of the mean loss over ``batch``, per kernel."""
        draw_key, noise_key = jax.random.split(key)
        data = {"batch_stats": batch_stats, "batch": batch}
        ones = jnp.ones(len(batch.labels))
        losses = self._losses(params, **data, weights=ones)
        truth = self._gradient(params, **data, weights=ones)
        rows, weights = draw_examples(selection, draw_key, losses)
        data["batch"] = Batch(batch.images[rows], batch.labels[rows])
        limit = self._gradient(params, **data, weights=weights)
        found = [
            per_kernel_cosine(
                self.estimate(
                    each,
                    selection.reactive_only,
                    jax.random.fold_in(noise_key, each),
                    params,
                    **data,
                    weights=weights,
                ),
                truth,
            )
            for each in pairs
        ]
        return Cosines(
            float(losses.mean()),
            {path: [each[path] for each in found] for path in found[0]},
            per_kernel_cosine(limit, truth),
        )


def per_kernel_cosine(found: Any, truth: Any) -> dict[str, float]:
    """The cosine of every leaf called kernel, by its path without that name."""
    cosines = {}
    leaves = jax.tree_util.tree_leaves_with_path(truth)
    for (path, b), a in zip(leaves, jax.tree.leaves(found), strict=True):
        *layer, last = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        if last == "kernel":
            cosines["/".join(layer)] = cosine(np.asarray(a), np.asarray(b))
    return cosines


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Of two arrays as vectors, in float64; 0 where one of them is zero."""
    a, b = np.ravel(a).astype(np.float64), np.ravel(b).astype(np.float64)
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float(np.clip(a @ b / norms, -1, 1)) if norms else 0.0
