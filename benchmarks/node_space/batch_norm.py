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
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import optax

import qiaso_jax
from benchmarks import cli
from benchmarks.cli import require_at_least, require_some
from benchmarks.harness import networks
from benchmarks.harness.data import CLASSES
from benchmarks.harness.networks import Batch
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
class Command(task.Protocol):
    """Trains a CNN with batch normalisation and dropout on scikit-learn's digits."""

    methods: tuple[Method, ...] = get_args(Method)
    candidates: int = 30
    examples: float | None = None
    """Share of the minibatch with candidates; None for the default of node_qiaso."""
    channels: tuple[int, int] = (16, 32)


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


def main(command: Command) -> None:
    """Writes everything."""
    require_some(command, "methods")
    require_at_least(command, 1, "channels")
    settings = report.node_settings(command)
    digits = task.load(command)
    rows = [
        {"method": method}
        | task.said(WORDS[method], measured(command, method, settings, digits))
        for method in command.methods
    ]
    content = {"seeds": list(range(command.seeds)), "rows": rows}
    report.write(command, "batch_norm", content, page(command, digits, rows))


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


def training(
    command: Command, method: Method, settings: dict[str, Any], train: Batch
) -> Callable[[jax.Array, int], Any]:
    """A compiled training: ``(rate, seed) -> variables``."""
    model = CNN(command.channels)

    def transformation(adam: Any, key: jax.Array) -> Any:
        if method == "adam":
            return optax.with_extra_args_support(adam)
        space = "node" if method == "node" else "auto"
        return qiaso_jax.node_qiaso(optimizer=adam, key=key, space=space, **settings)

    @jax.jit
    def trained(rate: jax.Array, seed: int) -> Any:
        keys = jax.random.split(jax.random.key(seed), 4)
        init_key, state_key, order_key, dropout_key = keys
        state = BatchStatsTrainState.create(
            apply_fn=model.apply,
            **model.init(init_key, train.images[:1], train=False),
            tx=transformation(optax.adam(rate), state_key),
        )

        def step(
            state: BatchStatsTrainState, batch: Batch, key: jax.Array
        ) -> BatchStatsTrainState:
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
            )

        state = task.fit(step, state, train, command, order_key, dropout_key)
        return {"params": state.params, "batch_stats": state.batch_stats}

    return trained


def measured(
    command: Command, method: Method, settings: dict[str, Any], digits: Digits
) -> dict[str, Any]:
    """The accuracies of a row, and its spaces."""
    model = CNN(command.channels)

    def logits(variables: Any, images: jax.Array) -> Any:
        return model.apply(variables, images, train=False)

    return task.measured(
        training(command, method, settings, digits.train),
        logits,
        None if method == "adam" else partial(sites, command, method, digits.train),
        digits,
        command,
    )


def sites(command: Command, method: Method, train: Batch) -> Any:
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
    return qiaso_jax.node_sites(
        value_fn,
        variables["params"],
        space="node" if method == "node" else "auto",
        batch=Batch(train.images[:size], train.labels[:size]),
    )


def page(command: Command, digits: Digits, rows: list[dict[str, Any]]) -> str:
    """The table as Markdown."""
    lines = []
    for row in rows:
        found = row.get("spaces", {})
        kernels = [path for path in found if path.endswith("kernel")]
        words = report.spaces_in_words(found, kernels)
        lines.append([WORDS[row["method"]], *task.cells(row), words])
    notes = NOTES.format(
        channels=" and ".join(map(str, command.channels)),
        momentum=MOMENTUM,
        dropout=DROPOUT,
        candidates=command.candidates,
        examples=report.examples_in_words(command),
    )
    columns = ["method", "Adam's rate", "accuracy, %", "spaces"]
    text = task.page("Batch normalisation", columns, lines, notes, command, digits)
    return text + report.refusals({WORDS[row["method"]]: row for row in rows})


if __name__ == "__main__":
    cli.run(main, Command, __doc__)
