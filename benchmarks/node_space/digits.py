"""Scikit-learn's digits in three splits, and the choice of a rate among them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from benchmarks.cli import UserError
from benchmarks.harness import data, pipeline
from benchmarks.harness.networks import Batch
from benchmarks.markdown import spread
from benchmarks.node_space.report import REFUSALS

VALIDATION = 0.2

PROTOCOL = """\
Scikit-learn's digits, standardised: {train} to train on, {validation} to choose
Adam's rate by, {test} to test on. Every row is trained at each of the rates {rates},
{epochs} epochs of minibatches of {batch_size}, seeds 0 to {last_seed}; shown is the
rate at which most of the validation images are right, over all seeds, and only there
the test images are looked at. Mean and standard deviation over the seeds of the test
accuracy in percent.
"""


class Digits(NamedTuple):
    """Three disjoint splits, the same for every run and seed."""

    train: Batch
    validation: Batch
    test: Batch


def load() -> Digits:
    """Standardised images ``[N, 8, 8, 1]`` and labels."""
    splits = pipeline.split(data.load("digits"), VALIDATION)
    batches = [
        Batch(pipeline.standardise(each.images, splits.mean, splits.std), each.labels)
        for each in (splits.train, splits.validation, splits.test)
    ]
    return Digits(*batches)


def check_batch_size(batch_size: int, digits: Digits) -> None:
    """Raises ``UserError`` for minibatches larger than the training split."""
    size = len(digits.train.labels)
    if batch_size > size:
        raise UserError(
            f"--batch-size {batch_size} is more than the {size} training examples"
        )


def minibatches(key: jax.Array, size: int, batch_size: int, epochs: int) -> jax.Array:
    """Indices of all minibatches of a training, ``[steps, batch_size]``."""
    orders = jax.vmap(lambda k: pipeline.epoch_order(k, size, batch_size))(
        jax.random.split(key, epochs)
    )
    return orders.reshape(-1, batch_size)


def tuned(
    train: Callable[[float, int], Any],
    correct: Callable[[Any, Batch], int],
    digits: Digits,
    rates: Sequence[float],
    seeds: int,
) -> dict[str, Any]:
    """Counts of right answers, of the test split at the rate that validation chose.

    Args:
      train: gives a trained model at a rate and a seed.
      correct: how many images of a split a model has right.
      digits: the splits.
      rates: of Adam.
      seeds: how many, from 0.
    """
    began = time.perf_counter()
    try:
        models = {rate: [train(rate, seed) for seed in range(seeds)] for rate in rates}
    except REFUSALS as error:
        return {"refused": str(error)}
    seconds = time.perf_counter() - began
    counts = {
        rate: [correct(model, digits.validation) for model in trained]
        for rate, trained in models.items()
    }
    chosen = max(rates, key=lambda rate: sum(counts[rate]))
    right = [correct(model, digits.test) for model in models[chosen]]
    size = len(digits.test.labels)
    return {
        "rates": [{"rate": rate, "validation_correct": counts[rate]} for rate in rates],
        "validation_size": len(digits.validation.labels),
        "rate": chosen,
        "test_correct": right,
        "test_size": size,
        "test_accuracies": [count / size for count in right],
        "test_accuracy": sum(right) / (size * seeds),
        "seconds": round(seconds, 1),
    }


def cells(report: dict[str, Any]) -> list[str]:
    """The rate and the accuracy of a row of a table."""
    if "refused" in report:
        return ["", "refused"]
    percent = [100 * accuracy for accuracy in report["test_accuracies"]]
    return [f"{report['rate']:g}", spread(percent, 1)]


def in_short(report: dict[str, Any]) -> str:
    """A row as progress shows it."""
    if "refused" in report:
        return f"refused: {report['refused']}"
    rate, accuracy = cells(report)
    return f"{accuracy} % at {rate}, {report['seconds']} s"


def protocol(command: Any, digits: Digits) -> str:
    """How the rows of a table were trained."""
    train, validation, test = (len(each.labels) for each in digits)
    return PROTOCOL.format(
        train=f"{train:,}",
        validation=validation,
        test=test,
        rates=", ".join(f"{rate:g}" for rate in command.rates),
        epochs=command.epochs,
        batch_size=command.batch_size,
        last_seed=command.seeds - 1,
    )
