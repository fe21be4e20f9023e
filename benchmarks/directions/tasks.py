"""The problems on which a default is chosen, as functions of parameters and a key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.directions import cartpole
from benchmarks.harness import networks, pipeline
from benchmarks.harness.data import CLASSES
from benchmarks.harness.interface import Objective
from benchmarks.harness.networks import Batch, Network
from benchmarks.rastrigin.methods import DIMENSION, HALF_WIDTH, rastrigin
from benchmarks.step_cost.models import Transformer

TEXT = Path(__file__).parents[2] / "LICENSE"
TOKENS = 32
ADAM = (1e-3, 3e-3, 1e-2)


class Task(NamedTuple):
    """A problem, and the settings that all kinds share.

    Attributes:
      init: parameters of a key.
      batch: what a step's candidates are evaluated on, of a key.
      loss: of one candidate on it.
      value: what is reported of the centre.
      higher_is_better: of values.
      steps: at most.
      settings: the arguments of ``qiaso``.
      optimizer: of a rate.
      rates: that are tried.
    """

    init: Callable[[jax.Array], Any]
    batch: Callable[[jax.Array], Any]
    loss: Callable[[Any, Any], jax.Array]
    value: Callable[[Any], jax.Array]
    higher_is_better: bool
    steps: int
    settings: dict[str, Any]
    optimizer: Callable[[Any], optax.GradientTransformation] = optax.adam
    rates: tuple[float, ...] = ADAM


class SmallCNN(nn.Module):
    """Two convolutions, each halved by pooling, and a dense layer."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        del train
        for channels in (8, 16):
            x = nn.max_pool(nn.relu(nn.Conv(channels, (3, 3))(x)), (2, 2), (2, 2))
        return nn.Dense(CLASSES)(x.reshape(len(x), -1))


def images(network: Network, splits: pipeline.Splits, size: int, steps: int) -> Task:
    """A classifier; its value is the accuracy on the validation split, in percent."""
    objective = Objective(network.apply)
    held_out = pipeline.batch_of(splits, splits.validation, slice(None))
    image = pipeline.batch_of(splits, splits.train, slice(1)).images
    number = len(splits.train.labels)

    def batch(key: jax.Array) -> Batch:
        rows = jax.random.choice(key, number, (size,))
        return pipeline.batch_of(splits, splits.train, rows)

    def value(params: Any) -> jax.Array:
        logits, _ = network.apply(params, {}, held_out.images, False)
        return 100 * jnp.mean(networks.correct(logits, held_out.labels))

    return Task(
        init=lambda key: network.init(key, image)[0],
        batch=batch,
        loss=lambda params, batch: objective.loss(params, {}, batch),
        value=value,
        higher_is_better=True,
        steps=steps,
        settings={"num_candidates": 30},
    )


def mlp(splits: pipeline.Splits) -> Task:
    """The paper's perceptron."""
    return images(networks.build("mlp"), splits, size=128, steps=300)


def cnn(splits: pipeline.Splits) -> Task:
    """A small convolutional network."""
    return images(networks.from_flax(SmallCNN(), True), splits, size=64, steps=200)


def transformer(steps: int = 200, size: int = 8) -> Task:
    """Characters of the licence; the value is the loss on its last tenth, in nats."""
    text = TEXT.read_text()
    alphabet = {character: i for i, character in enumerate(sorted(set(text)))}
    tokens = np.array([alphabet[character] for character in text], np.int32)
    cut = len(tokens) * 9 // 10
    module = Transformer(layers=2, width=64, heads=4, vocabulary=len(alphabet))
    network = networks.from_flax(module, convolutional=False)
    objective = Objective(network.apply)
    train, rest = jnp.asarray(tokens[:cut]), tokens[cut:]
    whole = len(rest) // (TOKENS + 1) * (TOKENS + 1)
    lines = jnp.asarray(rest[:whole].reshape(-1, TOKENS + 1))
    held_out = Batch(lines[:, :-1], lines[:, 1:])

    def batch(key: jax.Array) -> Batch:
        starts = jax.random.randint(key, (size, 1), 0, cut - TOKENS)
        found = train[starts + jnp.arange(TOKENS + 1)[None]]
        return Batch(found[:, :-1], found[:, 1:])

    return Task(
        init=lambda key: network.init(key, held_out.images[:1])[0],
        batch=batch,
        loss=lambda params, batch: objective.loss(params, {}, batch),
        value=lambda params: objective.loss(params, {}, held_out),
        higher_is_better=False,
        steps=steps,
        settings={"num_candidates": 30},
    )


def pole(steps: int = 60) -> Task:
    """CartPole; the value is the mean return of 64 episodes, 200 at most."""
    tests = cartpole.starts(jax.random.key(99), 64)
    return Task(
        init=cartpole.policy,
        batch=lambda key: cartpole.starts(key, 4),
        loss=lambda params, starts: -cartpole.mean_return(params, starts),
        value=lambda params: cartpole.mean_return(params, tests),
        higher_is_better=True,
        steps=steps,
        settings={"num_candidates": 64, "sigma": 0.1},
        rates=(1e-2, 3e-2, 1e-1),
    )


def rugged(steps: int = 500) -> Task:
    """Rastrigin's function in 30 dimensions; the value is that of the centre."""
    return Task(
        init=lambda key: jax.random.uniform(
            key, (DIMENSION,), minval=-HALF_WIDTH, maxval=HALF_WIDTH
        ),
        batch=lambda key: key,
        loss=lambda x, _: rastrigin(x),
        value=rastrigin,
        higher_is_better=False,
        steps=steps,
        settings={
            "num_candidates": 300,
            "sigma": optax.exponential_decay(2.5, steps, 1e-3 / 2.5),
            "eta": 3.0,
            "loss_scaling": "rank",
        },
        optimizer=optax.sgd,
        rates=(0.5, 1.0, 2.0),
    )
