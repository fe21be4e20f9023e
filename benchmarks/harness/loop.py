"""One epoch of all seeds as one compiled program, and its evaluation as another."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.cli import UserError
from benchmarks.harness import networks, optimizers, pipeline
from benchmarks.harness.interface import Setting, State
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
    network = networks.build(
        experiment.network,
        networks.initialiser(
            experiment.initialisation,
            experiment.initial_mean,
            experiment.initial_spread,
        ),
        experiment.hidden,
        experiment.channels,
        networks.in_parts
        if optimizers.REGISTRY[experiment.optimizer].uses_gradients
        else jax.vmap,
    )
    examples = len(splits.train.labels)
    if examples < experiment.batch_size:
        raise UserError(
            f"--batch-size {experiment.batch_size} is more than the {examples} "
            "training examples"
        )
    image = pipeline.standardise(splits.train.images[:1], splits.mean, splits.std)
    params, batch_stats = jax.eval_shape(network.init, jax.random.key(0), image)
    batch_norm = bool(jax.tree.leaves(batch_stats))
    steps = examples // experiment.batch_size
    setting, cost, epochs = _setting(experiment, steps, batch_norm)
    augmentation = pipeline.Augmentation(
        experiment.shift, experiment.flip, experiment.rotate, experiment.zoom
    )
    optimizer = optimizers.build(experiment.optimizer, network, setting, params)
    seeds = experiment.first_seed + jnp.arange(experiment.seeds, dtype=jnp.uint32)

    def initial(seed: jax.Array) -> State:
        network_key, optimizer_key = jax.random.split(_key(seed, 0))
        return optimizer.init(optimizer_key, *network.init(network_key, image))

    def epoch(
        state: State, seed: jax.Array, number: jax.Array, splits: Splits
    ) -> tuple[State, jax.Array]:
        order_key, augment_key = jax.random.split(_key(seed, number))
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

    def evaluate(state: State, splits: Splits) -> dict[str, jax.Array]:
        results = {}
        for name in ("validation", "test"):
            arrays = getattr(splits, name)
            if len(arrays.labels):
                loss, accuracy = _evaluation(network, state, arrays, splits)
                results |= {f"{name}_loss": loss, f"{name}_accuracy": accuracy}
        return results

    # The data are arguments: a program would carry closed-over arrays as constants.
    start = time.perf_counter()
    state = jax.jit(jax.vmap(initial))(seeds)
    number = jnp.uint32(1)
    run_epoch = (
        jax.jit(jax.vmap(epoch, in_axes=(0, 0, None, None)))
        .lower(state, seeds, number, splits)
        .compile()
    )
    run_evaluate = (
        jax.jit(jax.vmap(evaluate, in_axes=(0, None))).lower(state, splits).compile()
    )
    seconds = time.perf_counter() - start
    per_epoch = setting.steps_per_epoch * experiment.batch_size
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


def _key(seed: jax.Array, number: Any) -> jax.Array:
    # A pure function of seed and epoch, so that a resumed run needs no more than these.
    return jax.random.fold_in(jax.random.key(seed), number)


def _setting(
    experiment: Experiment, steps_per_epoch: int, batch_norm: bool
) -> tuple[Setting, float, int]:
    """The optimizer's numbers, its cost per example, the epochs within the budget."""
    setting = Setting(
        peak_learning_rate=experiment.learning_rate or 0.0,
        schedule=experiment.schedule,
        sigma=experiment.sigma or 0.0,
        num_candidates=1
        if experiment.without == "superposition"
        else experiment.candidates,
        examples=experiment.examples or 1.0,
        steps_per_epoch=steps_per_epoch,
        total_steps=0,
        label_smoothing=experiment.label_smoothing,
        without=experiment.without,
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


def _evaluation(
    network: networks.Network, state: State, arrays: Arrays, splits: Splits
) -> tuple[jax.Array, jax.Array]:
    """Mean loss and accuracy over all of ``arrays``."""

    def one_chunk(indices: jax.Array) -> tuple[jax.Array, jax.Array]:
        # The last chunk is filled up with examples that do not count.
        counts = indices < size
        indices = jnp.minimum(indices, size - 1)
        images = pipeline.standardise(arrays.images[indices], splits.mean, splits.std)
        logits, _ = network.apply(state.params, state.batch_stats, images, False)
        labels = arrays.labels[indices]
        loss = jnp.sum(counts * networks.cross_entropy(logits, labels))
        return loss, jnp.sum(counts * networks.correct(logits, labels))

    size = len(arrays.labels)
    chunks = -(-size // EVALUATION_CHUNK)
    indices = jnp.arange(chunks * EVALUATION_CHUNK).reshape(chunks, EVALUATION_CHUNK)
    losses, hits = jax.lax.map(one_chunk, indices)
    return jnp.sum(losses) / size, jnp.sum(hits) / size
