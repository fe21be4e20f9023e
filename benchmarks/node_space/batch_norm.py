"""``python -m benchmarks.node_space.batch_norm``: examples that meet in statistics.

A Flax linen CNN, batch normalisation in training mode and dropout, on scikit-learn's
digits: node space with its defaults, node space where it is asked for by name, which
is the gradient with the statistics held, and Adam with gradients. The running averages
are brought up to date by one forward pass after each step, as ``docs/flax.md`` has it.
Leaves ``batch_norm.json`` and ``batch_norm.md`` in the output folder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import tyro
from rich.console import Console

import qiaso_jax
from benchmarks.harness import networks
from benchmarks.harness.data import CLASSES
from benchmarks.harness.networks import Batch
from benchmarks.markdown import table
from benchmarks.node_space import digits as task
from benchmarks.node_space import report
from benchmarks.node_space.digits import Digits
from qiaso_jax.flax import BatchStatsTrainState

Method = Literal["default", "node", "adam"]

WORDS = {
    "default": "node_qiaso, defaults",
    "node": 'node_qiaso, space="node"',
    "adam": "Adam, gradients",
}
DROPOUT = 0.2
MOMENTUM = 0.9

NOTES = """\
Two 3×3 convolutions of {channels} channels, each with batch normalisation in training
mode (momentum {momentum}), ReLU and max-pooling, then dropout of {dropout} and a dense
layer. Tested with the running averages, which one forward pass after each step brings
up to date. K = {candidates}, examples {examples}; *spaces*: of the kernels, as
`node_sites` lists them.
"""


@dataclasses.dataclass(frozen=True)
class Command:
    """Trains a CNN with batch normalisation and dropout on scikit-learn's digits."""

    output: Path = report.RESULTS
    """Folder for batch_norm.json and batch_norm.md."""
    methods: tuple[Method, ...] = get_args(Method)
    seeds: int = 3
    epochs: int = 20
    batch_size: int = 64
    candidates: int = 30
    examples: float | None = None
    """Share of the minibatch with candidates; None for the default of node_qiaso."""
    channels: tuple[int, int] = (16, 32)
    rates: tuple[float, ...] = (1e-3, 3e-3, 6e-3, 1e-2)
    """Adam's, tried for every row."""


class CNN(nn.Module):
    """Convolution, batch normalisation, ReLU, pooling, twice; dropout, dense."""

    channels: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for channels in self.channels:
            x = nn.Conv(channels, (3, 3))(x)
            x = nn.BatchNorm(use_running_average=not train, momentum=MOMENTUM)(x)
            x = nn.max_pool(nn.relu(x), (2, 2), (2, 2))
        x = nn.Dropout(DROPOUT, deterministic=not train)(x.reshape(len(x), -1))
        return nn.Dense(CLASSES)(x)


def run(command: Command, console: Console) -> None:
    """Writes everything; raises ``UserError`` for what a user can mend."""
    check(command)
    digits = task.load()
    task.check_batch_size(command.batch_size, digits)
    rows = []
    for method in command.methods:
        rows.append({"method": method} | measured(command, method, digits))
        progress = f"{WORDS[method]}: {task.in_short(rows[-1])}"
        console.print(progress, style="dim", markup=False, highlight=False)
    content = {"seeds": list(range(command.seeds)), "rows": rows}
    report.write(command, "batch_norm", content, page(command, digits, rows))


def check(command: Command) -> None:
    """Raises ``UserError`` for numbers that cannot be."""
    report.check_named(command, "methods")
    report.check_counts(command, seeds=1, epochs=1, batch_size=4, channels=1)
    report.check_candidates(command)
    report.check_positive(command, "rates")


def losses(
    params: Any,
    batch: Batch,
    *,
    apply_fn: Callable[..., Any],
    batch_stats: Any,
    dropout_key: jax.Array,
) -> jax.Array:
    """Cross-entropy of each example in training mode."""
    output, _ = apply_fn(
        {"params": params, "batch_stats": batch_stats},
        batch.images,
        train=True,
        rngs={"dropout": dropout_key},
        mutable=["batch_stats"],
    )
    return networks.cross_entropy(output, batch.labels)


def transformation(command: Command, method: Method, adam: Any, key: jax.Array) -> Any:
    """The optimizer of a row around ``adam``."""
    if method == "adam":
        return optax.with_extra_args_support(adam)
    settings: dict[str, Any] = {"space": "node"} if method == "node" else {}
    if command.examples is not None:
        settings["examples"] = command.examples
    return qiaso_jax.node_qiaso(command.candidates, optimizer=adam, key=key, **settings)


def training(
    command: Command, method: Method, train: Batch
) -> Callable[[jax.Array, jax.Array], Any]:
    """A compiled training: ``(rate, key) -> variables``."""
    model = CNN(command.channels)

    @jax.jit
    def trained(rate: jax.Array, key: jax.Array) -> Any:
        init_key, state_key, order_key, dropout_key = jax.random.split(key, 4)
        state = BatchStatsTrainState.create(
            apply_fn=model.apply,
            **model.init(init_key, train.images[:1], train=False),
            tx=transformation(command, method, optax.adam(rate), state_key),
        )

        def step(
            state: BatchStatsTrainState, inputs: tuple[jax.Array, jax.Array]
        ) -> tuple[BatchStatsTrainState, None]:
            rows, key = inputs
            batch = Batch(train.images[rows], train.labels[rows])
            value_fn = partial(
                losses,
                apply_fn=model.apply,
                batch_stats=state.batch_stats,
                dropout_key=key,
            )
            grads = None
            if method == "adam":
                grads = jax.grad(lambda p: value_fn(p, batch).mean())(state.params)
            state = state.apply_gradients(grads=grads, value_fn=value_fn, batch=batch)
            return state.refresh_batch_stats(
                batch.images, train=True, rngs={"dropout": key}
            ), None

        rows = task.minibatches(
            order_key, len(train.labels), command.batch_size, command.epochs
        )
        keys = jax.random.split(dropout_key, len(rows))
        state, _ = jax.lax.scan(step, state, (rows, keys))
        return {"params": state.params, "batch_stats": state.batch_stats}

    return trained


def measured(command: Command, method: Method, digits: Digits) -> dict[str, Any]:
    """The accuracies of a row, and its spaces."""
    trained = training(command, method, digits.train)
    model = CNN(command.channels)

    @jax.jit
    def right(variables: Any, split: Batch) -> jax.Array:
        logits: Any = model.apply(variables, split.images, train=False)
        return jnp.sum(jnp.argmax(logits, axis=-1) == split.labels)

    found = task.tuned(
        lambda rate, seed: jax.block_until_ready(
            trained(jnp.float32(rate), jax.random.key(seed))
        ),
        lambda variables, split: int(right(variables, split)),
        digits,
        command.rates,
        command.seeds,
    )
    if method != "adam" and "refused" not in found:
        found["spaces"] = spaces(command, method, digits.train)
    return found


def spaces(command: Command, method: Method, train: Batch) -> dict[str, str]:
    """Where ``node_sites`` finds each parameter before training."""
    model = CNN(command.channels)
    variables = model.init(jax.random.key(0), train.images[:1], train=False)
    value_fn = partial(
        losses,
        apply_fn=model.apply,
        batch_stats=variables["batch_stats"],
        dropout_key=jax.random.key(0),
    )
    size = command.batch_size
    sites = qiaso_jax.node_sites(
        value_fn,
        variables["params"],
        space="node" if method == "node" else "auto",
        batch=Batch(train.images[:size], train.labels[:size]),
    )
    return report.spaces(sites)


def page(command: Command, digits: Digits, rows: list[dict[str, Any]]) -> str:
    """The table as Markdown."""
    cells = []
    for row in rows:
        found = row.get("spaces", {})
        kernels = [path for path in found if path.endswith("kernel")]
        words = report.spaces_in_words(found, kernels) if found else ""
        cells.append([WORDS[row["method"]], *task.cells(row), words])
    notes = NOTES.format(
        channels=" and ".join(map(str, command.channels)),
        momentum=MOMENTUM,
        dropout=DROPOUT,
        candidates=command.candidates,
        examples=report.examples_in_words(command),
    )
    columns = ["method", "Adam's rate", "accuracy, %", "spaces"]
    parts = ["# Batch normalisation", "", table(columns, cells), notes]
    parts += [task.protocol(command, digits)]
    return "\n".join(parts) + report.refusals(
        [WORDS[row["method"]] for row in rows], rows
    )


if __name__ == "__main__":
    raise SystemExit(report.main(run, tyro.cli(Command)))
