import dataclasses

import jax
import numpy as np
import pytest
import scipy.stats

from benchmarks.harness import data, networks, pipeline
from benchmarks.harness.loop import compile_program
from benchmarks.harness.settings import Experiment

pytestmark = pytest.mark.slow

EXPERIMENT = Experiment(
    dataset="digits",
    optimizer="adam",
    hidden=(8,),
    learning_rate=1e-2,
    batch_size=64,
    epochs=2,
    seeds=2,
)


@pytest.fixture(scope="module")
def splits():
    return pipeline.split(data.load("digits"), 0.1)


@pytest.fixture(scope="module")
def program(splits):
    return compile_program(EXPERIMENT, splits)


def test_whole_test_set_is_evaluated(program, splits):
    # 360 and 143 examples, neither a multiple of a chunk.
    measured = program.evaluate(program.state)
    network = networks.build("mlp", hidden=(8,))
    for name in ("validation", "test"):
        arrays = getattr(splits, name)
        images = pipeline.standardise(arrays.images, splits.mean, splits.std)
        for seed in range(2):
            params = jax.tree.map(lambda leaf, i=seed: leaf[i], program.state.params)
            logits, _ = network.apply(params, {}, images, False)
            hits = np.argmax(logits, axis=1) == np.asarray(arrays.labels)
            losses = -jax.nn.log_softmax(logits)[
                np.arange(len(hits)), np.asarray(arrays.labels)
            ]
            assert measured[f"{name}_accuracy"][seed] == pytest.approx(hits.mean())
            assert measured[f"{name}_loss"][seed] == pytest.approx(
                float(losses.mean()), rel=1e-4
            )


def test_an_epoch_is_a_function_of_state_and_number(program):
    once, loss = program.epoch(program.state, 1)
    again, _ = program.epoch(program.state, 1)
    other, other_loss = program.epoch(program.state, 2)
    jax.tree.map(np.testing.assert_array_equal, once, again)
    assert np.all(loss != other_loss)
    assert any(
        bool((a != b).any())
        for a, b in zip(
            jax.tree.leaves(once.params), jax.tree.leaves(other.params), strict=True
        )
    )


def test_seeds_start_from_different_weights(program):
    for kernel in jax.tree.leaves(program.state.params):
        if kernel.ndim == 3:
            assert not np.allclose(kernel[0], kernel[1])


def test_no_validation_split_no_validation_numbers():
    everything = pipeline.split(data.load("digits"), 0.0, limit=128)
    program = compile_program(EXPERIMENT, everything)
    assert set(program.evaluate(program.state)) == {"test_loss", "test_accuracy"}


def test_augmentation_changes_what_is_seen(program, splits):
    shifted = compile_program(dataclasses.replace(EXPERIMENT, shift=1), splits)
    _, plain_loss = program.epoch(program.state, 1)
    _, shifted_loss = shifted.epoch(program.state, 1)
    assert np.all(plain_loss < shifted_loss)


def test_label_smoothing_is_of_the_training_loss_alone(program, splits):
    smoothed = compile_program(
        dataclasses.replace(EXPERIMENT, label_smoothing=0.5, epochs=20), splits
    )
    expected = program.evaluate(program.state)
    jax.tree.map(
        np.testing.assert_array_equal, smoothed.evaluate(smoothed.state), expected
    )
    # Of ten classes at best 0.55 · log(1 / 0.55) + 9 · 0.05 · log(1 / 0.05).
    least = scipy.stats.entropy([0.55] + [0.05] * 9)
    state = smoothed.state
    for number in range(1, 21):
        state, loss = smoothed.epoch(state, number)
    assert (np.asarray(loss) > least).all()
    assert (np.asarray(smoothed.evaluate(state)["test_loss"]) < least).all()


def test_cnn_population_refreshes_batch_statistics(splits):
    experiment = dataclasses.replace(
        EXPERIMENT,
        network="cnn",
        hidden=None,
        optimizer="pgpe",
        sigma=0.02,
        candidates=2,
        seeds=1,
    )
    few = splits._replace(
        train=pipeline.Arrays(*(leaf[:64] for leaf in splits.train)),
        test=pipeline.Arrays(*(leaf[:64] for leaf in splits.test)),
    )
    with jax.numpy_rank_promotion("allow"):
        program = compile_program(experiment, few)
        state, _ = program.epoch(program.state, 1)
    changed = [
        bool((a != b).any())
        for a, b in zip(
            jax.tree.leaves(program.state.batch_stats),
            jax.tree.leaves(state.batch_stats),
            strict=True,
        )
    ]
    assert all(changed)
    # Two candidates, the clean pass that refreshes, 64 examples.
    assert program.sample_forwards_per_epoch == 3 * 64
