"""One epoch of all seeds as one compiled program, and its evaluation as another."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.cli import UserError
from benchmarks.harness import convolution, networks, optimizers, pipeline
from benchmarks.harness.interface import Optimizer, Setting, State
from benchmarks.harness.networks import Network
from benchmarks.harness.pipeline import Arrays, Splits
from benchmarks.harness.settings import Experiment, resolved

EVALUATION_CHUNK = 500


class Program(NamedTuple):
    """An experiment, compiled. States and results have a leading axis of seeds.

    ``epoch(state, number)`` trains for one pass; numbers start at 1, and decide the
    order of the data. ``evaluate(state)`` gives loss and accuracy on the validation and
    the test split.
    """

    state: State
    epoch: Callable[[State, int], tuple[State, jax.Array]]
    evaluate: Callable[[State], dict[str, jax.Array]]
    epochs: int
    examples_per_epoch: int
    sample_forwards_per_epoch: float
    num_params: int
    compile_seconds: float


def compile_program(experiment: Experiment, splits: Splits) -> Program:
    """Builds network and optimizer, and compiles.

    Raises:
      UserError: The experiment's numbers do not fit the data, network or optimizer.
    """
    experiment = resolved(experiment)
    examples = len(splits.train.labels)
    if examples < experiment.batch_size:
        raise UserError(
            f"--batch-size {experiment.batch_size} is more than the {examples} "
            "training examples"
        )
    network = _network(experiment)
    image = pipeline.batch_of(splits, splits.train, slice(1)).images
    params, batch_stats = jax.eval_shape(network.init, jax.random.key(0), image)
    batch_norm = bool(jax.tree.leaves(batch_stats))
    steps = examples // experiment.batch_size
    setting, cost, epochs = _setting(experiment, steps, batch_norm)
    optimizer = optimizers.build(experiment.optimizer, network, setting, params)
    seeds = experiment.first_seed + jnp.arange(experiment.seeds, dtype=jnp.uint32)

    # The data are arguments: a program would carry closed-over arrays as constants.
    start = time.perf_counter()
    state = jax.jit(jax.vmap(partial(_initial, network, optimizer, image)))(seeds)
    epoch = jax.vmap(partial(_epoch, experiment, optimizer), in_axes=(0, 0, None, None))
    run_epoch = jax.jit(epoch).lower(state, seeds, jnp.uint32(1), splits).compile()
    evaluate = jax.vmap(partial(_evaluate, network), in_axes=(0, None))
    run_evaluate = jax.jit(evaluate).lower(state, splits).compile()
    seconds = time.perf_counter() - start
    per_epoch = steps * experiment.batch_size
    return Program(
        state=state,
        epoch=lambda state, number: run_epoch(state, seeds, jnp.uint32(number), splits),
        evaluate=lambda state: run_evaluate(state, splits),
        epochs=epochs,
        examples_per_epoch=per_epoch,
        sample_forwards_per_epoch=cost * per_epoch,
        num_params=sum(leaf.size for leaf in jax.tree.leaves(params)),
        compile_seconds=seconds,
    )


def _network(experiment: Experiment) -> Network:
    gradients = optimizers.REGISTRY[experiment.optimizer].uses_gradients
    kernel_init = networks.initialiser(
        experiment.initialisation,
        experiment.initial_mean or 0.0,
        experiment.initial_spread or 0.0,
    )
    return networks.build(
        experiment.network,
        kernel_init,
        experiment.hidden or (),
        experiment.channels or (),
        convolution.in_parts if gradients else jax.vmap,
    )


def _initial(
    network: Network, optimizer: Optimizer, image: jax.Array, seed: jax.Array
) -> State:
    network_key, optimizer_key = jax.random.split(_key(seed, 0))
    return optimizer.init(optimizer_key, *network.init(network_key, image))


def _epoch(
    experiment: Experiment,
    optimizer: Optimizer,
    state: State,
    seed: jax.Array,
    number: jax.Array,
    splits: Splits,
) -> tuple[State, jax.Array]:
    """One pass over the training split, and the mean of its steps' losses."""
    augmentation = pipeline.Augmentation(
        experiment.shift, experiment.flip, experiment.rotate, experiment.zoom
    )
    order_key, augment_key = jax.random.split(_key(seed, number))
    examples = len(splits.train.labels)
    order = pipeline.epoch_order(order_key, examples, experiment.batch_size)

    def step(
        state: State, inputs: tuple[jax.Array, jax.Array]
    ) -> tuple[State, jax.Array]:
        key, indices = inputs
        batch = pipeline.minibatch(key, splits, indices, augmentation)
        return optimizer.step(state, batch)

    keys = jax.random.split(augment_key, len(order))
    state, losses = jax.lax.scan(step, state, (keys, order))
    return state, jnp.mean(losses)


def _key(seed: jax.Array, number: Any) -> jax.Array:
    # A pure function of seed and epoch, so that a resumed run needs no more than these.
    return jax.random.fold_in(jax.random.key(seed), number)


def _setting(
    experiment: Experiment, steps_per_epoch: int, batch_norm: bool
) -> tuple[Setting, float, int]:
    """The optimizer's numbers, its cost per example, the epochs within the budget."""
    setting = Setting(
        peak_learning_rate=experiment.learning_rate or 0.0,
        schedule=experiment.schedule or "constant",
        sigma=experiment.sigma or 0.0,
        num_candidates=(
            1 if experiment.without == "superposition" else experiment.candidates or 1
        ),
        examples=experiment.examples or 1.0,
        steps_per_epoch=steps_per_epoch,
        total_steps=0,
        label_smoothing=experiment.label_smoothing,
        without=experiment.without,
        directions=experiment.directions or "rademacher",
        rank=experiment.rank or 1,
        groups=experiment.groups or 1,
    )
    cost = optimizers.sample_forwards(experiment.optimizer, setting, batch_norm)
    epochs = experiment.epochs
    if experiment.budget is not None:
        per_epoch = cost * steps_per_epoch * experiment.batch_size
        epochs = min(epochs, int(experiment.budget // per_epoch))
        if epochs == 0:
            raise UserError(
                f"--budget {experiment.budget:g} does not pay for one epoch of "
                f"{experiment.optimizer}, which costs {per_epoch:,.0f} sample-forwards"
            )
    setting = setting._replace(total_steps=epochs * steps_per_epoch)
    return setting, cost, epochs


def _evaluate(network: Network, state: State, splits: Splits) -> dict[str, jax.Array]:
    """Mean loss and accuracy on the validation split, if there is one, and the test."""
    results = {}
    for name in ("validation", "test"):
        arrays = getattr(splits, name)
        if len(arrays.labels):
            loss, accuracy = _means(network, state, arrays, splits)
            results |= {f"{name}_loss": loss, f"{name}_accuracy": accuracy}
    return results


def _means(
    network: Network, state: State, arrays: Arrays, splits: Splits
) -> tuple[jax.Array, jax.Array]:
    """Mean loss and accuracy over all of ``arrays``."""
    size = len(arrays.labels)

    def one_chunk(indices: jax.Array) -> tuple[jax.Array, jax.Array]:
        # The last chunk is filled up with examples that do not count.
        counts = indices < size
        batch = pipeline.batch_of(splits, arrays, jnp.minimum(indices, size - 1))
        logits, _ = network.apply(state.params, state.batch_stats, batch.images, False)
        losses = networks.cross_entropy(logits, batch.labels)
        hits = networks.correct(logits, batch.labels)
        return jnp.sum(counts * losses), jnp.sum(counts * hits)

    chunks = -(-size // EVALUATION_CHUNK)
    indices = jnp.arange(chunks * EVALUATION_CHUNK).reshape(chunks, EVALUATION_CHUNK)
    losses, hits = jax.lax.map(one_chunk, indices)
    return jnp.sum(losses) / size, jnp.sum(hits) / size
