"""What ``benchmarks.factorised`` computes: searches, a small network, and the cost."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import qiaso_jax
from benchmarks.harness import data
from benchmarks.harness.networks import Params
from benchmarks.rastrigin.methods import (
    DIMENSION,
    SIGMA,
    WORKING_SIGMA,
    Run,
    Stopwatch,
    rastrigin,
    scanned,
)

ROTATION_SEED = 0
LAST_SIGMA = 1e-4
BATCH_SIZE = 128
HIDDEN = 16
NETWORK_SIGMA = 0.03
NUM_VALUES = 30
"""K for the network and for the cost; of whole vectors, as many as a step evaluates."""

EXACT: dict[str, Any] = {"num_candidates": 30, "eta": 3.0}
BEST: dict[str, Any] = {"num_candidates": 31, "collapse": "best"}
MEASURED: dict[str, Any] = {
    "num_candidates": 50,
    "eta": 5.0,
    "loss_scaling": "rank",
}


def rotated_rastrigin(x: jax.Array) -> jax.Array:
    """Rastrigin's function of Q x, for a fixed random orthogonal matrix Q."""
    rng = np.random.default_rng(ROTATION_SEED)
    normal = rng.standard_normal((DIMENSION, DIMENSION))
    rotation = jnp.asarray(np.linalg.qr(normal)[0], x.dtype)
    return rastrigin(jnp.dot(rotation, x, precision=jax.lax.Precision.HIGHEST))


FUNCTIONS = {"Rastrigin": rastrigin, "rotated Rastrigin": rotated_rastrigin}


def searches(
    fun: Callable[[jax.Array], jax.Array], budget: int, starts: np.ndarray
) -> Iterator[Run]:
    """Every method on one function at one budget."""
    yield factorised("exact, expectation", fun, budget, starts, EXACT)
    yield factorised("exact, best", fun, budget, starts, BEST)
    measured = MEASURED | {"num_measurements": max(100, budget // 600)}
    yield factorised("measured, expectation", fun, budget, starts, measured)
    yield whole_vector(fun, budget, starts)


def factorised(
    method: str,
    fun: Callable[[jax.Array], jax.Array],
    budget: int,
    starts: np.ndarray,
    settings: dict[str, Any],
) -> Run:
    """``factorised_qiaso`` on elements, its σ annealed geometrically."""
    population = evaluations_per_step(DIMENSION, **settings)
    first = WORKING_SIGMA if "num_measurements" in settings else SIGMA
    steps = budget // population
    make = partial(
        qiaso_jax.factorised_qiaso,
        sigma=optax.exponential_decay(first, steps, LAST_SIGMA / first),
        **settings,
    )

    def init(start, key):
        return start, make(key=key).init(start)

    update: Any = make().update

    def step(carry, key):
        del key  # the state has its own
        x, state = carry
        updates, state = update(None, state, x, value_fn=fun)
        return (optax.apply_updates(x, updates), state), state.info.best_loss

    settings = settings | {"sigma": [first, LAST_SIGMA]}
    return scanned(method, settings, budget, population, starts, init, step)


def whole_vector(
    fun: Callable[[jax.Array], jax.Array], budget: int, starts: np.ndarray
) -> Run:
    """``minimize``, whose candidates are whole vectors."""
    watch = Stopwatch()
    results = [
        qiaso_jax.minimize(
            fun,
            jnp.asarray(start, jnp.float32),
            sigma=WORKING_SIGMA,
            max_evaluations=budget,
            key=seed,
        )
        for seed, start in enumerate(starts)
    ]
    spent = results[0].nfev
    settings = {"population": spent // results[0].nit, "sigma": WORKING_SIGMA}
    values = [result.fun for result in results]
    return Run(
        "whole vectors, minimize", settings, budget, spent, *watch.read(), values
    )


def evaluations_per_step(
    num_blocks: int,
    num_candidates: int,
    num_measurements: int | None = None,
    **_: Any,
) -> int:
    """How often ``factorised_qiaso`` evaluates the loss in one update."""
    return num_measurements or num_candidates * num_blocks


@dataclasses.dataclass(frozen=True)
class Training:
    """One optimizer at one learning rate on digits; a figure for each seed."""

    method: str
    learning_rate: float
    evaluations: int
    train_losses: list[float]
    test_accuracies: list[float]


def network_optimizers() -> dict[str, Callable[..., optax.GradientTransformation]]:
    """Those compared; each evaluates ``4 · NUM_VALUES`` times in a step."""
    whole, blockwise = qiaso_jax.qiaso, qiaso_jax.factorised_qiaso
    size = 4 * NUM_VALUES
    return {
        "whole vector": partial(whole, size),
        "leaf, exact": partial(blockwise, NUM_VALUES, granularity="leaf"),
        "leaf, measured": partial(
            blockwise, NUM_VALUES, granularity="leaf", num_measurements=size
        ),
        "element, measured": partial(blockwise, NUM_VALUES, num_measurements=size),
    }


def initial_network(seed: int) -> Params:
    """A 64-16-10 network, He's normal initial weights: 4 leaves, 1,210 weights."""
    rng = np.random.default_rng(seed)

    def kernel(*shape):
        return (rng.standard_normal(shape) * np.sqrt(2 / shape[0])).astype(np.float32)

    return {
        "kernel_1": kernel(64, HIDDEN),
        "bias_1": np.zeros(HIDDEN, np.float32),
        "kernel_2": kernel(HIDDEN, data.CLASSES),
        "bias_2": np.zeros(data.CLASSES, np.float32),
    }


def network_logits(params: Params, images: jax.Array) -> jax.Array:
    """Of flat images, shape ``[B, 64]``."""
    hidden = jnp.dot(images, params["kernel_1"]) + params["bias_1"][None]
    return jnp.dot(jax.nn.relu(hidden), params["kernel_2"]) + params["bias_2"][None]


def network_loss(params: Params, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy."""
    logits = network_logits(params, images)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def train(
    method: str, learning_rates: Sequence[float], evaluations: int, seeds: int
) -> list[Training]:
    """Adam on the displacement, minibatches of 128; a report for each rate."""
    digits = data.load("digits")
    train_images, test_images = (
        jnp.asarray(images.reshape(len(images), -1), jnp.float32) / 16
        for images in (digits.train_images, digits.test_images)
    )
    train_labels = jnp.asarray(digits.train_labels)
    make = partial(network_optimizers()[method], sigma=NETWORK_SIGMA)
    num_steps = evaluations // (4 * NUM_VALUES)

    def trained(learning_rate, key, params):
        state_key, scan_key = jax.random.split(key)
        tx: Any = make(optimizer=optax.adam(learning_rate), key=state_key)

        def step(carry, key):
            params, state = carry
            rows = jax.random.choice(key, len(train_labels), (BATCH_SIZE,))
            updates, state = tx.update(
                None,
                state,
                params,
                value_fn=network_loss,
                images=train_images[rows],
                labels=train_labels[rows],
            )
            return (optax.apply_updates(params, updates), state), None

        keys = jax.random.split(scan_key, num_steps)
        (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), keys)
        guesses = jnp.argmax(network_logits(params, test_images), axis=-1)
        accuracy = jnp.mean(guesses == jnp.asarray(digits.test_labels))
        return network_loss(params, train_images, train_labels), accuracy

    keys = jax.vmap(jax.random.key)(jnp.arange(seeds))
    networks = jax.tree.map(
        lambda *leaves: jnp.stack(leaves), *map(initial_network, range(seeds))
    )
    of_seeds = jax.vmap(trained, in_axes=(None, 0, 0))
    of_rates = jax.jit(jax.vmap(of_seeds, in_axes=(0, None, None)))
    losses, accuracies = of_rates(jnp.asarray(learning_rates), keys, networks)
    return [
        Training(
            method=method,
            learning_rate=rate,
            evaluations=num_steps * 4 * NUM_VALUES,
            train_losses=losses[i].tolist(),
            test_accuracies=accuracies[i].tolist(),
        )
        for i, rate in enumerate(learning_rates)
    ]


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one update costs on Rastrigin's function."""

    method: str
    num_weights: int
    evaluations: int
    seconds: float
    """The least of some runs, compiled."""


def cost(num_weights: int, num_measurements: int | None, repeats: int = 3) -> Cost:
    """Times one update on elements, 300 evaluations at a time."""
    settings: dict[str, Any] = {
        "num_candidates": NUM_VALUES,
        "num_measurements": num_measurements,
    }
    tx: Any = qiaso_jax.factorised_qiaso(**settings, candidate_batch_size=300)
    x = jnp.ones(num_weights)
    state = tx.init(x)
    step = jax.jit(lambda state, x: tx.update(None, state, x, value_fn=rastrigin))
    jax.block_until_ready(step(state, x))
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(step(state, x))
        seconds.append(time.perf_counter() - began)
    return Cost(
        method="measured" if num_measurements else "exact",
        num_weights=num_weights,
        evaluations=evaluations_per_step(num_weights, **settings),
        seconds=min(seconds),
    )
