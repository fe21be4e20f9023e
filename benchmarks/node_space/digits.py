"""Rows that are trained on scikit-learn's digits at several rates, and their report."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.cli import (
    progress,
    require,
    require_at_least,
    require_positive,
    require_some,
)
from benchmarks.harness import data, networks, pipeline
from benchmarks.harness.networks import Batch
from benchmarks.markdown import spread, table
from benchmarks.node_space import report

VALIDATION = 0.2

PROTOCOL = """\
Scikit-learn's digits, standardised: {train:,} to train on, {validation} to choose
Adam's rate by, {test} to test on. Every row is trained at each of the rates {rates},
{epochs} epochs of minibatches of {batch_size}, seeds 0 to {last_seed}; shown is the
rate at which most of the validation images are right, over all seeds, and only there
the test images are looked at. Mean and standard deviation over the seeds of the test
accuracy in percent.
"""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How every row is trained; the commands add what they compare."""

    output: Path = report.RESULTS
    """Folder for a .json and a .md named after the command."""
    seeds: int = 3
    epochs: int = 20
    batch_size: int = 64
    rates: tuple[float, ...] = (1e-3, 3e-3, 6e-3, 1e-2)
    """Adam's, tried for every row."""


class Digits(NamedTuple):
    """Three disjoint splits, the same for every run and seed."""

    train: Batch
    validation: Batch
    test: Batch


def load(protocol: Protocol) -> Digits:
    """Standardised images ``[N, 8, 8, 1]`` and labels; checks the numbers."""
    require_at_least(protocol, 1, "seeds", "epochs")
    require_at_least(protocol, 4, "batch_size")
    require_some(protocol, "rates")
    require_positive(protocol, "rates")
    splits = pipeline.split(data.load("digits"), VALIDATION)
    most = len(splits.train.labels)
    wanted = f"at most the {most} training examples"
    require(protocol, wanted, lambda size: size <= most, "batch_size")
    return Digits(
        *(
            pipeline.batch_of(splits, each, slice(None))
            for each in (splits.train, splits.validation, splits.test)
        )
    )


def fit(
    step: Callable[[Any, Batch, Any], Any],
    state: Any,
    train: Batch,
    protocol: Protocol,
    order_key: jax.Array,
    step_key: jax.Array | None = None,
) -> Any:
    """The state after ``step(state, batch, key)`` on all minibatches of a training.

    The key of a step is split from ``step_key``; without that it is ``None``.
    """
    orders = jax.vmap(
        lambda key: pipeline.epoch_order(key, len(train.labels), protocol.batch_size)
    )(jax.random.split(order_key, protocol.epochs))
    rows = orders.reshape(-1, protocol.batch_size)
    keys = None if step_key is None else jax.random.split(step_key, len(rows))

    def one(state: Any, inputs: Any) -> tuple[Any, None]:
        rows, key = inputs
        return step(state, Batch(train.images[rows], train.labels[rows]), key), None

    return jax.lax.scan(one, state, (rows, keys))[0]


def measured(
    train: Callable[[jax.Array, int], Any],
    logits: Callable[[Any, jax.Array], jax.Array],
    sites: Callable[[], Iterable[Any]] | None,
    digits: Digits,
    protocol: Protocol,
) -> dict[str, Any]:
    """Counts of right answers, of the test split at the rate that validation chose.

    Args:
      train: gives a trained model at a rate and a seed.
      logits: of a trained model on images.
      sites: what ``node_sites`` lists; None for methods without node space.
      digits: the splits.
      protocol: the rates and the number of seeds.
    """

    @jax.jit
    def correct(model: Any, split: Batch) -> jax.Array:
        return jnp.sum(networks.correct(logits(model, split.images), split.labels))

    rates, seeds = protocol.rates, range(protocol.seeds)
    began = time.perf_counter()
    try:
        models = {
            rate: [train(jnp.float32(rate), seed) for seed in seeds] for rate in rates
        }
    except report.REFUSALS as error:
        return {"refused": str(error)}
    seconds = time.perf_counter() - began
    counts = {
        rate: [int(correct(model, digits.validation)) for model in models[rate]]
        for rate in rates
    }
    chosen = max(rates, key=lambda rate: sum(counts[rate]))
    right = [int(correct(model, digits.test)) for model in models[chosen]]
    size = len(digits.test.labels)
    found = {
        "rates": [{"rate": rate, "validation_correct": counts[rate]} for rate in rates],
        "validation_size": len(digits.validation.labels),
        "rate": chosen,
        "test_correct": right,
        "test_size": size,
        "test_accuracies": [count / size for count in right],
        "test_accuracy": sum(right) / (size * len(right)),
        "seconds": round(seconds, 1),
    }
    return found if sites is None else found | {"spaces": report.spaces(sites())}


def said(name: str, row: dict[str, Any]) -> dict[str, Any]:
    """``row``, once progress has shown it."""
    if "refused" in row:
        progress(f"{name}: refused: {row['refused']}")
    else:
        rate, accuracy = cells(row)
        progress(f"{name}: {accuracy} % at {rate}, {row['seconds']} s")
    return row


def cells(row: dict[str, Any]) -> list[str]:
    """The rate and the accuracy of a row of a table."""
    if "refused" in row:
        return ["", "refused"]
    percent = [100 * accuracy for accuracy in row["test_accuracies"]]
    return [f"{row['rate']:g}", spread(percent, 1)]


def page(
    title: str,
    columns: Sequence[str],
    lines: Sequence[Sequence[str]],
    notes: str,
    protocol: Protocol,
    digits: Digits,
) -> str:
    """A table with its notes as Markdown."""
    train, validation, test = (len(each.labels) for each in digits)
    about = PROTOCOL.format(
        train=train,
        validation=validation,
        test=test,
        rates=", ".join(f"{rate:g}" for rate in protocol.rates),
        epochs=protocol.epochs,
        batch_size=protocol.batch_size,
        last_seed=protocol.seeds - 1,
    )
    return "\n".join([f"# {title}", "", table(columns, lines), notes, about])
