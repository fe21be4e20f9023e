"""Losses and gradients that are replaced while a network is trained on digits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import qiaso_jax
from benchmarks.factorised.network import BATCH_SIZE, HIDDEN, PER_STEP, loss
from benchmarks.harness import data, mlp, networks

NUM_CANDIDATES = 30
NAN = float("nan")
STRETCH = 50


class Fault(NamedTuple):
    """What is seen in place of some losses.

    Attributes:
      value: that.
      each: probability of each loss.
      step: probability that all of a step are replaced.
      stretch: how many steps in a row, in the middle, have all replaced.
    """

    value: float
    each: float = 0.0
    step: float = 0.0
    stretch: int = 0


FAULTS = {
    "nothing": Fault(0.0),
    "NaN, 1 % of losses": Fault(NAN, each=0.01),
    "NaN, 10 % of losses": Fault(NAN, each=0.1),
    "NaN, 50 % of losses": Fault(NAN, each=0.5),
    "∞, 10 % of losses": Fault(float("inf"), each=0.1),
    "NaN, all losses of 5 % of steps": Fault(NAN, step=0.05),
    f"0, all losses of {STRETCH} steps in a row": Fault(0.0, stretch=STRETCH),
    "1e30, 1 % of losses": Fault(1e30, each=0.01),
    "1e38, 10 % of losses": Fault(1e38, each=0.1),
    "−1e38, 1 % of losses": Fault(-1e38, each=0.01),
}
GRADIENT_FAULTS = {
    "nothing": Fault(0.0),
    "NaN, all gradients of 5 % of steps": Fault(NAN, step=0.05),
}


class Method(NamedTuple):
    """An optimizer, and a step of it with losses or gradients that are spoilt.

    Attributes:
      faults: what is tried on it.
      number: of losses in a step that can be replaced.
      tx: the optimizer.
      update: ``(tx, state, params, batch, hit, value) -> (updates, state)``.
    """

    faults: dict[str, Fault]
    number: int
    tx: Any
    update: Callable[..., Any]


def of_candidates(tx, state, params, batch, hit, value):
    """Losses of candidates are replaced."""

    def losses(candidates):
        true = jax.vmap(lambda each: loss(each, *batch))(candidates)
        return jnp.where(hit, value, true)

    return tx.update(None, state, params, candidates_value_fn=losses)


def of_examples(tx, state, params, batch, hit, value):
    """Losses of examples are replaced, for all of their candidates."""

    def losses(params, images, labels, hit):
        true = networks.cross_entropy(mlp.logits(params, images), labels)
        return jnp.where(hit, value, true)

    images, labels = batch
    kwargs = {"images": images, "labels": labels, "hit": hit}
    return tx.update(None, state, params, value_fn=losses, **kwargs)


def of_gradients(tx, state, params, batch, hit, value):
    """The gradients of a hybrid are replaced, all at once."""
    images, labels = batch
    gradients = jax.grad(loss)(params, images, labels)
    gradients = jax.tree.map(lambda g: jnp.where(hit[0], value, g), gradients)
    kwargs = {"images": images, "labels": labels}
    return tx.update(gradients, state, params, value_fn=loss, **kwargs)


def methods() -> dict[str, Method]:
    """What is trained."""
    settings: dict[str, Any] = {"sigma": 0.03, "optimizer": optax.adam(0.03)}
    whole = qiaso_jax.qiaso(NUM_CANDIDATES, **settings)
    ranks = qiaso_jax.qiaso(NUM_CANDIDATES, loss_scaling="rank", eta=3.0, **settings)
    measured = qiaso_jax.factorised_qiaso(
        NUM_CANDIDATES, num_measurements=PER_STEP, **settings
    )
    node = qiaso_jax.node_qiaso(NUM_CANDIDATES, optimizer=optax.adam(0.01))
    hybrid = optax.chain(optax.adam(0.01), qiaso_jax.qiaso(8))
    return {
        "qiaso": Method(FAULTS, NUM_CANDIDATES, whole, of_candidates),
        "qiaso, ranks": Method(FAULTS, NUM_CANDIDATES, ranks, of_candidates),
        "factorised_qiaso": Method(FAULTS, PER_STEP, measured, of_candidates),
        "node_qiaso": Method(FAULTS, BATCH_SIZE, node, of_examples),
        "hybrid": Method(GRADIENT_FAULTS, 1, hybrid, of_gradients),
        "hybrid, in apply_if_finite": Method(
            GRADIENT_FAULTS, 1, optax.apply_if_finite(hybrid, 100), of_gradients
        ),
    }


def train(name: str, num_steps: int, seeds: int) -> list[dict[str, Any]]:
    """A training of one method under each fault; lists have a number for each seed.

    A seed has the same start and minibatches, and the optimizer the same key, under
    every fault.
    """
    method = methods()[name]
    digits = data.load("digits")
    images, test_images = (
        jnp.asarray(each, jnp.float32) / 16
        for each in (digits.train_images, digits.test_images)
    )
    labels, test_labels = map(jnp.asarray, (digits.train_labels, digits.test_labels))

    def trained(fault: Fault, key: jax.Array, params: Any) -> dict[str, Any]:
        def step(carry, inputs):
            number, key = inputs
            params, state = carry
            rows_key, each_key, step_key = jax.random.split(key, 3)
            rows = jax.random.choice(rows_key, len(labels), (BATCH_SIZE,))
            first = (num_steps - fault.stretch) // 2
            everything = (first <= number) & (number < first + fault.stretch)
            everything |= jax.random.bernoulli(step_key, fault.step)
            hit = jax.random.bernoulli(each_key, fault.each, (method.number,))
            hit |= everything
            batch = (images[rows], labels[rows])
            updates, state = method.update(
                method.tx, state, params, batch, hit, fault.value
            )
            moved = [jnp.any(u != 0) for u in jax.tree.leaves(updates)]
            record = {
                "hits": jnp.sum(hit),
                "steps_hit": everything,
                "moved": everything & jnp.any(jnp.stack(moved)),
                "nonfinite": optax.tree.get(state, "num_nonfinite"),
            }
            return (optax.apply_updates(params, updates), state), record

        inputs = (jnp.arange(num_steps), jax.random.split(key, num_steps))
        carry, records = jax.lax.scan(step, (params, method.tx.init(params)), inputs)
        params, state = carry
        hits = networks.correct(mlp.logits(params, test_images), test_labels)
        return jax.tree.map(jnp.sum, records) | {
            "skipped": optax.tree.get(state, "num_skipped"),
            "flat": optax.tree.get(state, "num_flat"),
            "train_loss": loss(params, images, labels),
            "test_accuracy": jnp.mean(hits),
        }

    keys = jax.vmap(jax.random.key)(jnp.arange(seeds))
    starts = [mlp.initial(seed, HIDDEN) for seed in range(seeds)]
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    faults = jax.tree.map(lambda *each: jnp.array(each), *method.faults.values())
    of_seeds = jax.vmap(trained, in_axes=(None, 0, 0))
    of_faults = jax.jit(jax.vmap(of_seeds, in_axes=(0, None, None)))
    found = jax.tree.map(lambda x: x.tolist(), of_faults(faults, keys, params))
    # JSON has no NaN.
    found["train_loss"] = [
        [each if math.isfinite(each) else None for each in losses]
        for losses in found["train_loss"]
    ]
    return [
        {"method": name, "injected": fault}
        | {field: values[i] for field, values in found.items()}
        for i, fault in enumerate(method.faults)
    ]
