"""What is timed: the steps of optimizers, and the units that they are measured in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

import qiaso_jax
from benchmarks.harness import evolution
from benchmarks.harness.interface import DirectionsName, Setting
from benchmarks.harness.networks import Batch
from benchmarks.step_cost.models import Model

SIGMA = 0.02
RATE = 1e-3
CYCLE = 10
"""Steps from one collapse of the printed form to the next."""
KINDS: tuple[DirectionsName, ...] = get_args(DirectionsName)
RIVALS = {
    "Open-ES": evolution.open_es,
    "SNES": evolution.snes,
    "Sep-CMA-ES": evolution.sep_cma_es,
}


class Job(NamedTuple):
    """A function of its first argument, that may change from call to call, and data.

    Attributes:
      function: ``function(state, batch)``.
      init: makes the first ``state``.
      batch: what stays.
      carries: whether ``function`` returns the next state.
      steps: calls that are one measurement.
    """

    function: Callable[[Any, Batch], Any]
    init: Callable[[], Any]
    batch: Batch
    carries: bool = False
    steps: int = 1


def named(directions: str, at_a_time: int | None) -> str:
    """A kind of directions in chunks, as rows are called."""
    return directions if at_a_time is None else f"{directions} in {at_a_time}"


def evaluation(model: Model, num_candidates: int, at_a_time: int | None) -> Job:
    """The losses of K candidates that lie ready: all by ``vmap``, or by ``map``."""

    def candidates() -> Any:
        keys = jax.random.split(jax.random.key(2), num_candidates)

        def candidate(key: jax.Array) -> Any:
            noise = optax.tree.random_like(key, model.params)
            return optax.tree.add_scale(model.params, SIGMA, noise)

        return jax.lax.map(candidate, keys)

    def losses(candidates: Any, batch: Batch) -> jax.Array:
        def loss(params: Any) -> jax.Array:
            return model.loss(params, batch)

        if at_a_time is None:
            return jax.vmap(loss)(candidates)
        return jax.lax.map(loss, candidates, batch_size=at_a_time)

    return Job(losses, jax.jit(candidates), model.batch)


def inference(model: Model, num_candidates: int) -> Job:
    """One forward pass of K minibatches, with the same weights and the K losses."""
    batch = jax.tree.map(lambda x: jnp.concatenate([x] * num_candidates), model.batch)

    def losses(params: Any, batch: Batch) -> jax.Array:
        each = model.losses(params, batch)
        return jnp.mean(each.reshape(num_candidates, -1), axis=1)

    return Job(losses, lambda: model.params, batch)


def adam(model: Model) -> Job:
    """A step on the back-propagated gradient of one minibatch."""
    tx = optax.adam(RATE)

    def step(state: Any, batch: Batch) -> Any:
        params, inner = state
        gradient = jax.grad(model.loss)(params, batch)
        updates, inner = tx.update(gradient, inner, params)
        return optax.apply_updates(params, updates), inner

    return Job(step, lambda: (model.params, tx.init(model.params)), model.batch, True)


def gradient_free_step(
    tx: Any, value_fn: Callable[..., jax.Array]
) -> Callable[[Any, Batch], Any]:
    """``step((params, state), batch)`` of a transformation that needs no gradient."""

    def step(state: Any, batch: Batch) -> Any:
        params, inner = state
        updates, inner = tx.update(None, inner, params, value_fn=value_fn, batch=batch)
        return optax.apply_updates(params, updates), inner

    return step


def gradient_free(
    model: Model,
    tx: Any,
    value_fn: Callable[..., jax.Array],
    steps: int = 1,
) -> Job:
    """A step of one of ours."""
    init = jax.jit(tx.init)
    return Job(
        gradient_free_step(tx, value_fn),
        lambda: (model.params, init(model.params)),
        model.batch,
        carries=True,
        steps=steps,
    )


def qiaso(
    model: Model,
    num_candidates: int,
    directions: DirectionsName,
    at_a_time: int | None = None,
) -> Job:
    """The working form without an inner optimizer, which is not what is measured."""
    tx = qiaso_jax.qiaso(
        num_candidates, SIGMA, directions=directions, candidate_batch_size=at_a_time
    )
    return gradient_free(model, tx, model.loss)


def printed(model: Model, num_candidates: int) -> Job:
    """The printed form over a cycle, with every candidate tunnelling in every step."""
    settings = dict[str, Any](qiaso_jax.PAPER) | {
        "num_candidates": num_candidates,
        "collapse_every": CYCLE,
        "tunnelling": qiaso_jax.gaussian_tunnelling(0.02, 1.0, 1.0),
    }
    return gradient_free(model, qiaso_jax.qiaso(**settings), model.loss, CYCLE)


def node_space(model: Model, num_candidates: int) -> Job:
    """Node space, which needs the losses of the examples, with all of them noisy."""
    tx = qiaso_jax.node_qiaso(
        num_candidates,
        SIGMA,
        optimizer=optax.sgd(RATE),
        examples=1.0,
        batch_argnames=("batch",),
    )
    return gradient_free(model, tx, model.losses)


def rival(model: Model, name: str, num_candidates: int, at_a_time: int | None) -> Job:
    """A generation of one of evosax's: ask, evaluate, tell."""
    setting = Setting(
        RATE, "constant", SIGMA, num_candidates, 1.0, 1, 1,
        candidate_batch_size=at_a_time,
    )  # fmt: skip
    optimizer = evolution.from_evosax(
        RIVALS[name], model.objective, setting, model.params
    )

    def init() -> Any:
        return optimizer.init(jax.random.key(3), model.params, {})

    def step(state: Any, batch: Batch) -> Any:
        return optimizer.step(state, batch)[0]

    return Job(step, init, model.batch, True)
