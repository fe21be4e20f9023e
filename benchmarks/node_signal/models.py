"""The networks whose gradients are measured, and their short training."""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from benchmarks.harness import networks, pipeline
from benchmarks.harness.data import CLASSES
from benchmarks.harness.interface import Objective
from benchmarks.harness.networks import Batch, Network
from benchmarks.harness.pipeline import Splits

NetworkName = Literal["mlp", "cnn", "transformer"]
TRAINING_BATCH = 128
_PATCHES = 4


class Transformer(nn.Module):
    """16 patches as tokens, one pre-norm block of attention and ReLU, their mean."""

    width: int = 32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        del train
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
    return networks.from_flax(Transformer(), convolutional=False)


def trained(
    network: Network, splits: Splits, num_steps: int, learning_rate: float
) -> tuple[Any, Any]:
    """Parameters and batch statistics after so many steps of Adam; maybe none."""
    tx = optax.adam(learning_rate)
    size = len(splits.train.labels)

    @jax.jit
    def train(params: Any, batch_stats: Any) -> tuple[Any, Any]:
        def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
            params, batch_stats, state = carry
            batch = draw_batch(key, splits, min(TRAINING_BATCH, size))
            gradient, batch_stats = jax.grad(
                Objective(network.apply).loss_and_stats, has_aux=True
            )(params, batch_stats, batch)
            updates, state = tx.update(gradient, state, params)
            return (optax.apply_updates(params, updates), batch_stats, state), None

        keys = jax.random.split(jax.random.key(1), num_steps)
        carry = (params, batch_stats, tx.init(params))
        return jax.lax.scan(step, carry, keys)[0][:2]

    image = pipeline.batch_of(splits, splits.train, slice(1)).images
    start = network.init(jax.random.key(0), image)
    return train(*start) if num_steps else start


def draw_batch(key: jax.Array, splits: Splits, size: int) -> Batch:
    """Training examples, drawn without replacement."""
    every = jnp.arange(len(splits.train.labels))
    rows = jax.random.choice(key, every, (size,), replace=False)
    return pipeline.batch_of(splits, splits.train, rows)
