"""The networks whose steps are timed, on random minibatches of a fixed size.

They are as a user would write them: nothing is made for low-rank candidates.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from benchmarks.harness import networks
from benchmarks.harness.data import CLASSES
from benchmarks.harness.interface import Objective
from benchmarks.harness.networks import Batch, Network

NetworkName = Literal["mlp", "cnn", "transformer"]
HIDDEN = (128, 64)
VOCABULARY = 256
TOKENS = 64


class Model(NamedTuple):
    """A network at the parameters where its steps are timed."""

    objective: Objective
    params: Any
    batch: Batch

    @property
    def size(self) -> int:
        """How many numbers the parameters are."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.params))

    def loss(self, params: Any, batch: Batch) -> jax.Array:
        """The mean loss of a minibatch."""
        return self.objective.loss(params, {}, batch)

    def losses(self, params: Any, batch: Batch) -> jax.Array:
        """Of each example, or of each token of each sequence."""
        return self.objective.losses(params, {}, batch)


class CNN(nn.Module):
    """Three 3×3 convolutions, each halved by pooling, and two dense layers."""

    channels: tuple[int, ...] = (16, 32, 64)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        del train
        for channels in self.channels:
            x = nn.relu(nn.Conv(channels, (3, 3))(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.relu(nn.Dense(64)(x.reshape(len(x), -1)))
        return nn.Dense(CLASSES)(x)


class Block(nn.Module):
    """Pre-norm causal attention, then a perceptron of four times the width."""

    width: int
    heads: int

    @nn.compact
    def __call__(self, h: jax.Array, _: None) -> tuple[jax.Array, None]:
        mask = nn.make_causal_mask(h[:, :, 0])
        h = h + nn.MultiHeadDotProductAttention(self.heads)(
            nn.LayerNorm()(h), mask=mask
        )
        up = nn.gelu(nn.Dense(4 * self.width)(nn.LayerNorm()(h)))
        return h + nn.Dense(self.width)(up), None


class Transformer(nn.Module):
    """A language model of tokens; its layers are a scan over one block's."""

    layers: int
    width: int
    heads: int
    vocabulary: int = VOCABULARY

    @nn.compact
    def __call__(self, tokens: jax.Array, train: bool) -> jax.Array:
        del train
        h = nn.Embed(self.vocabulary, self.width)(tokens)
        shape = h.shape[1:]
        h = h + self.param("position", nn.initializers.normal(0.02), shape)[None]
        blocks = nn.scan(
            Block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.layers,
        )
        h, _ = blocks(self.width, self.heads)(h, None)
        return nn.Dense(self.vocabulary)(nn.LayerNorm()(h))


TRANSFORMER = Transformer(layers=6, width=384, heads=6)
"""10.8 million parameters."""
LARGE_TRANSFORMER = Transformer(layers=14, width=768, heads=12)
"""99.7 million parameters."""


def mlp(batch_size: int, hidden: tuple[int, ...] = HIDDEN) -> Model:
    """The paper's perceptron on 28×28 pixels."""
    return on_images(networks.build("mlp", hidden=hidden), batch_size)


def cnn(batch_size: int) -> Model:
    """The convolutions of ``CNN`` on 28×28 pixels."""
    return on_images(networks.from_flax(CNN(), convolutional=True), batch_size)


def transformer(batch_size: int, module: Transformer = TRANSFORMER) -> Model:
    """A ``Transformer`` on sequences, each token of which is to be told from before."""
    network = networks.from_flax(module, convolutional=False)
    return _model(network, sequences(batch_size, module))


def sequences(number: int, module: Transformer) -> Batch:
    """Random tokens, and those that follow them."""
    shape = (number, TOKENS + 1)
    tokens = jax.random.randint(jax.random.key(1), shape, 0, module.vocabulary)
    return Batch(tokens[:, :-1], tokens[:, 1:])


def on_images(network: Network, batch_size: int) -> Model:
    """A classifier of 28×28 pixels, on noise."""
    images = jax.random.normal(jax.random.key(1), (batch_size, 28, 28, 1))
    return _model(network, Batch(images, jnp.arange(batch_size) % CLASSES))


def _model(network: Network, batch: Batch) -> Model:
    params, _ = jax.jit(network.init)(jax.random.key(0), batch.images[:1])
    return Model(Objective(network.apply), params, batch)


BUILDERS = {"mlp": mlp, "cnn": cnn, "transformer": transformer}
