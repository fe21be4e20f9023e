"""Runs of a task with one kind of directions, and the choice of its rate."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import qiaso_jax
from benchmarks.directions.tasks import Task

TUNING_SEED = 1000
"""Not one that results are reported for."""


def trainer(task: Task, directions: Any) -> Callable[[int, float], tuple[float, float]]:
    """``train(seed, rate)``: the value reached, and seconds of a step."""

    def train(seed: jax.Array, rate: jax.Array) -> jax.Array:
        first, second, third = jax.random.split(jax.random.key(seed), 3)
        tx: Any = qiaso_jax.qiaso(
            **task.settings,
            directions=directions,
            optimizer=task.optimizer(rate),
            key=second,
        )
        params = task.init(first)

        def loss(params: Any, batch: Any) -> jax.Array:
            return task.loss(params, batch)

        def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
            params, state = carry
            updates, state = tx.update(
                None, state, params, value_fn=loss, batch=task.batch(key)
            )
            return (optax.apply_updates(params, updates), state), None

        keys = jax.random.split(third, task.steps)
        (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), keys)
        return task.value(params)

    compiled = jax.jit(train).lower(jnp.uint32(0), jnp.float32(0)).compile()

    def timed(seed: int, rate: float) -> tuple[float, float]:
        start = time.perf_counter()
        value = float(compiled(jnp.uint32(seed), jnp.float32(rate)))
        return value, (time.perf_counter() - start) / task.steps

    return timed


def row(task: Task, directions: Any, seeds: int) -> dict[str, Any]:
    """The rate that is best for a seed of its own, and what it reaches for others."""
    train = trainer(task, directions)
    trials = {rate: train(TUNING_SEED, rate) for rate in task.rates}
    values = {rate: value for rate, (value, _) in trials.items()}
    rate = best(values, task.higher_is_better)
    runs = [train(seed, rate) for seed in range(seeds)]
    seconds = [each for _, each in (*trials.values(), *runs)]
    return {
        "rate": rate,
        "trials": [[rate, _finite(value)] for rate, value in values.items()],
        "values": [_finite(value) for value, _ in runs],
        "seconds_per_step": float(f"{np.median(seconds):.4g}"),
    }


def best(values: dict[float, float], higher_is_better: bool) -> float:
    """The rate with the best value that is finite."""
    sign = 1 if higher_is_better else -1

    def score(rate: float) -> float:
        return sign * values[rate] if np.isfinite(values[rate]) else -np.inf

    return max(values, key=score)


def at(seconds: Sequence[float], values: Sequence[float], when: float) -> float:
    """The value at a time between measurements, by linear interpolation."""
    return float(np.interp(when, seconds, values))


def _finite(value: float) -> float | None:
    """JSON has no NaN, which is what a run that diverged ends in."""
    return value if np.isfinite(value) else None
