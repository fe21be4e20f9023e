"""Cosines between node-space pseudo-gradients and back-propagated gradients.

With linear weights (η = 0) an estimate from many pairs is the mean of estimates from
few, so the many are measured by repeating one compiled step of few.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import qiaso_jax
from benchmarks import networks, pipeline
from benchmarks.data import CLASSES
from benchmarks.networks import Batch, Network
from benchmarks.pipeline import Splits
from qiaso_jax.node import telling_examples

NetworkName = Literal["mlp", "cnn", "transformer"]
FRACTION = 4
"""One in so many examples gets candidates where examples are drawn."""
TRAINING_BATCH = 128
_PATCHES = 4


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


class Transformer(nn.Module):
    """16 patches as tokens, one pre-norm block of attention and ReLU, their mean."""

    width: int = 32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        h = nn.Dense(self.width, name="embedding")(patches(x))
        shape = h.shape[1:]
        h = h + self.param("position", nn.initializers.normal(0.02), shape)[None]
        h = h + nn.MultiHeadDotProductAttention(4, name="attention")(nn.LayerNorm()(h))
        up = nn.Dense(2 * self.width, name="up")(nn.LayerNorm()(h))
        h = h + nn.Dense(self.width, name="down")(nn.relu(up))
        return nn.Dense(CLASSES, name="head")(nn.LayerNorm()(h).mean(axis=1))


def patches(images: jax.Array) -> jax.Array:
    """Images ``[B, H, W, C]`` as a grid of 4 × 4 patches, ``[B, 16, HWC / 16]``.

    Rows and columns beyond a multiple of four are left out.
    """
    size, height, width, channels = images.shape
    height, width = height // _PATCHES, width // _PATCHES
    images = images[:, : _PATCHES * height, : _PATCHES * width]
    grid = images.reshape(size, _PATCHES, height, _PATCHES, width, channels)
    return grid.swapaxes(2, 3).reshape(size, _PATCHES**2, -1)


def build(name: NetworkName) -> Network:
    """The paper's MLP or CNN, or the transformer block."""
    if name != "transformer":
        return networks.build(name)
    module = Transformer()

    def init(key: jax.Array, images: jax.Array) -> tuple[Any, Any]:
        return module.init(key, images)["params"], {}

    def apply(
        params: Any, batch_stats: Any, images: jax.Array, train: bool
    ) -> tuple[jax.Array, Any]:
        del train
        logits: Any = module.apply({"params": params}, images)
        return logits, batch_stats

    return Network(init, apply, False)


def trained(
    network: Network, splits: Splits, num_steps: int, learning_rate: float
) -> tuple[Any, Any]:
    """Parameters and batch statistics after so many steps of Adam; maybe none."""
    tx = optax.adam(learning_rate)
    size = len(splits.train.labels)

    def loss(params: Any, batch_stats: Any, batch: Batch) -> tuple[jax.Array, Any]:
        logits, batch_stats = network.apply(params, batch_stats, batch.images, True)
        return jnp.mean(networks.cross_entropy(logits, batch.labels)), batch_stats

    @jax.jit
    def train(params: Any, batch_stats: Any) -> tuple[Any, Any]:
        def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
            params, batch_stats, state = carry
            batch = draw_batch(key, splits, min(TRAINING_BATCH, size))
            gradient, batch_stats = jax.grad(loss, has_aux=True)(
                params, batch_stats, batch
            )
            updates, state = tx.update(gradient, state, params)
            return (optax.apply_updates(params, updates), batch_stats, state), None

        keys = jax.random.split(jax.random.key(1), num_steps)
        carry = (params, batch_stats, tx.init(params))
        return jax.lax.scan(step, carry, keys)[0][:2]

    image = pipeline.standardise(splits.train.images[:1], splits.mean, splits.std)
    start = network.init(jax.random.key(0), image)
    return train(*start) if num_steps else start


def draw_batch(key: jax.Array, splits: Splits, size: int) -> Batch:
    """Training examples, drawn without replacement."""
    every = jnp.arange(len(splits.train.labels))
    rows = jax.random.choice(key, every, (size,), replace=False)
    images = splits.train.images[rows]
    images = pipeline.standardise(images, splits.mean, splits.std)
    return Batch(images, splits.train.labels[rows])


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
        self._estimates: dict[tuple[int, bool], Callable[..., Any]] = {}

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
        if (few, reactive_only) not in self._estimates:
            self._estimates[few, reactive_only] = jax.jit(
                lambda *args, **data: self._mean(few, reactive_only, *args, **data)
            )
        return self._estimates[few, reactive_only](pairs // few, key, params, **data)

    def _mean(
        self,
        pairs: int,
        reactive_only: bool,
        repeats: jax.Array,
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
            a, b = np.ravel(a).astype(np.float64), np.ravel(b).astype(np.float64)
            norm = np.linalg.norm(a) * np.linalg.norm(b)
            cosines["/".join(layer)] = float(a @ b / norm)
    return cosines
