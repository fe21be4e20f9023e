"""A small network on digits, trained without gradients in four ways."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

import qiaso_jax
from benchmarks.harness import data, mlp, networks
from benchmarks.harness.mlp import Params

BATCH_SIZE = 128
HIDDEN = 16
SIGMA = 0.03
NUM_VALUES = 30
"""K; of whole vectors, as many as a step evaluates."""
PER_STEP = 4 * NUM_VALUES
"""Evaluations of a minibatch in a step: of a network of four leaves."""

OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "whole vector": partial(qiaso_jax.qiaso, PER_STEP),
    "leaf, exact": partial(qiaso_jax.factorised_qiaso, NUM_VALUES, granularity="leaf"),
    "leaf, measured": partial(
        qiaso_jax.factorised_qiaso,
        NUM_VALUES,
        granularity="leaf",
        num_measurements=PER_STEP,
    ),
    "element, measured": partial(
        qiaso_jax.factorised_qiaso, NUM_VALUES, num_measurements=PER_STEP
    ),
}


@dataclasses.dataclass(frozen=True)
class Training:
    """One optimizer at one learning rate on digits; a figure for each seed."""

    method: str
    learning_rate: float
    evaluations: int
    train_losses: list[float]
    test_accuracies: list[float]


def loss(params: Params, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy."""
    return networks.cross_entropy(mlp.logits(params, images), labels).mean()


def train(
    method: str, learning_rates: Sequence[float], evaluations: int, seeds: int
) -> list[Training]:
    """Adam on the displacement, minibatches of 128; a report for each rate."""
    digits = data.load("digits")
    images, test_images = (
        jnp.asarray(each, jnp.float32) / 16
        for each in (digits.train_images, digits.test_images)
    )
    labels = jnp.asarray(digits.train_labels)
    test_labels = jnp.asarray(digits.test_labels)
    num_steps = evaluations // PER_STEP

    def trained(learning_rate, key, params):
        state_key, scan_key = jax.random.split(key)
        adam = optax.adam(learning_rate)
        tx: Any = OPTIMIZERS[method](sigma=SIGMA, optimizer=adam, key=state_key)

        def step(carry, key):
            params, state = carry
            rows = jax.random.choice(key, len(labels), (BATCH_SIZE,))
            batch = {"images": images[rows], "labels": labels[rows]}
            updates, state = tx.update(None, state, params, value_fn=loss, **batch)
            return (optax.apply_updates(params, updates), state), None

        keys = jax.random.split(scan_key, num_steps)
        carry = (params, tx.init(params))
        final: Any = jax.lax.scan(step, carry, keys)[0][0]
        hits = networks.correct(mlp.logits(final, test_images), test_labels)
        return loss(final, images, labels), jnp.mean(hits)

    keys = jax.vmap(jax.random.key)(jnp.arange(seeds))
    single = [mlp.initial(seed, HIDDEN) for seed in range(seeds)]
    starts = jax.tree.map(lambda *leaves: jnp.stack(leaves), *single)
    of_seeds = jax.vmap(trained, in_axes=(None, 0, 0))
    of_rates = jax.jit(jax.vmap(of_seeds, in_axes=(0, None, None)))
    losses, accuracies = of_rates(jnp.asarray(learning_rates), keys, starts)
    return [
        Training(
            method=method,
            learning_rate=rate,
            evaluations=num_steps * PER_STEP,
            train_losses=losses[i].tolist(),
            test_accuracies=accuracies[i].tolist(),
        )
        for i, rate in enumerate(learning_rates)
    ]
