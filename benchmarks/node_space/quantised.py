"""``python -m benchmarks.node_space.quantised``: weights that are read through steps.

An MLP 64-128-10 with ReLU on scikit-learn's digits whose kernels are rounded in the
forward pass, written in the two usual ways: ``round(w / s) * s``, and straight-through,
``w + stop_gradient(q(w) - w)``. Node space with its defaults, and beside it what else
can train such a network. Adam's rate is chosen per row on a validation split, among the
same trials for every row. Leaves ``quantised.json`` and ``quantised.md`` in the output
folder.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from rich.console import Console

import qiaso_jax
from benchmarks.cli import UserError
from benchmarks.harness import networks
from benchmarks.harness.data import CLASSES
from benchmarks.harness.networks import Batch
from benchmarks.markdown import table
from benchmarks.node_space import digits as task
from benchmarks.node_space import report
from benchmarks.node_space.digits import Digits

Params = dict[str, jax.Array]
Steps = dict[str, jax.Array | float]
Family = Literal["float", "rounded", "straight-through"]

HIDDEN = 128
KERNELS = ("kernel_1", "kernel_2")
LARGEST = 127
"""Of the integers of eight bits."""

NOTES = """\
The network is 64-{hidden}-10 with ReLU; its two kernels are read through a quantiser,
its biases are not.

- *float*: no quantiser.
- *rounded*: `round(w / s) * s` with s {step}.
- *straight-through*: `w + stop_gradient(q(w) - w)`, with q(w) = sign(w) a for binary,
  (clip(floor(w / a), -2, 1) + 1/2) a for 2-bit, a the mean of |w|, and
  round(w / s) s with s = max |w| / 127 for 8-bit; a and s are those of the weights as
  they are.
- *unit*: all parameters, biases too, are stored as w / unit, and Adam's rate is divided
  by the unit; the rate shown is that of w.
- *node_qiaso*, *qiaso*: with all defaults, K = 30; *Adam*: with gradients.
- *space*: that of the kernels, as `node_sites` lists them.
"""


class Row(NamedTuple):
    """One way to write and to train the network."""

    family: Family
    quantiser: str
    method: str
    unit: float = 1.0

    @property
    def name(self) -> str:
        weights = f"{self.family} {self.quantiser}".strip()
        return f"{weights}, unit {self.unit:g}, {self.method}"


@dataclasses.dataclass(frozen=True)
class Command:
    """Trains an MLP with quantised weights on scikit-learn's digits."""

    output: Path = report.RESULTS
    """Folder for quantised.json and quantised.md."""
    families: tuple[Family, ...] = get_args(Family)
    seeds: int = 3
    epochs: int = 60
    batch_size: int = 64
    rates: tuple[float, ...] = (1e-3, 3e-3, 6e-3, 1e-2)
    """Adam's, tried for every row."""
    units: tuple[float, ...] = (1.0, 0.1, 0.01)
    """In which the parameter that is rounded is stored."""
    step: float | None = 0.01
    """s of ``round(w / s) * s``; None for the largest initial weight / 127."""


def run(command: Command, console: Console) -> None:
    """Writes everything; raises ``UserError`` for what a user can mend."""
    check(command)
    digits = task.load()
    task.check_batch_size(command.batch_size, digits)
    rows, reports = list(rows_of(command)), []
    for row in rows:
        reports.append(measured(command, row, digits))
        progress = f"{row.name}: {task.in_short(reports[-1])}"
        console.print(progress, style="dim", markup=False, highlight=False)
    found = [
        {"name": row.name} | row._asdict() | each
        for row, each in zip(rows, reports, strict=True)
    ]
    content = {"seeds": list(range(command.seeds)), "rows": found}
    report.write(command, "quantised", content, page(command, digits, rows, reports))


def check(command: Command) -> None:
    """Raises ``UserError`` for numbers that cannot be."""
    report.check_named(command, "families")
    report.check_counts(command, seeds=1, epochs=1, batch_size=4)
    report.check_positive(command, "rates", "units")
    if command.step is not None and not 0 < command.step < math.inf:
        raise UserError(f"--step must be positive, got {command.step}")


def rows_of(command: Command) -> Iterator[Row]:
    """The rows of the table."""
    if "float" in command.families:
        yield from (Row("float", "", method) for method in ("node_qiaso", "Adam"))
    if "rounded" in command.families:
        for unit in command.units:
            yield Row("rounded", "8-bit", "node_qiaso", unit)
        for method in ('node_qiaso, space="weights"', "qiaso"):
            yield Row("rounded", "8-bit", method)
    if "straight-through" in command.families:
        for quantiser in QUANTISERS:
            for method in ("node_qiaso", "Adam"):
                yield Row("straight-through", quantiser, method)


def binary(w: jax.Array) -> jax.Array:
    """Two values, ± the mean of ``|w|``."""
    return jnp.sign(w) * jnp.mean(jnp.abs(w))


def two_bit(w: jax.Array) -> jax.Array:
    """Four values, at ± a half and three halves of the mean of ``|w|``."""
    spacing = jnp.mean(jnp.abs(w))
    return (jnp.clip(jnp.floor(w / spacing), -2, 1) + 0.5) * spacing


def eight_bit(w: jax.Array) -> jax.Array:
    """255 values, from minus the largest of ``|w|`` to the largest."""
    step = jnp.max(jnp.abs(w)) / LARGEST
    return jnp.round(w / step) * step


QUANTISERS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "binary": binary,
    "2-bit": two_bit,
    "8-bit": eight_bit,
}


def initial(seed: int, unit: float) -> Params:
    """He's normal initial weights, in units of ``unit``."""
    rng = np.random.default_rng(seed)

    def kernel(*shape: int) -> jax.Array:
        w = rng.standard_normal(shape) * np.sqrt(2 / shape[0])
        return jnp.asarray(w / unit, jnp.float32)

    return {
        "kernel_1": kernel(64, HIDDEN),
        "bias_1": jnp.zeros(HIDDEN),
        "kernel_2": kernel(HIDDEN, CLASSES),
        "bias_2": jnp.zeros(CLASSES),
    }


def steps_of(command: Command, row: Row, params: Params) -> Steps:
    """The step s of each kernel, from its initial weights or the same for all."""
    if command.step is not None:
        return dict.fromkeys(KERNELS, command.step)
    return {
        name: row.unit * jnp.max(jnp.abs(params[name])) / LARGEST for name in KERNELS
    }


def read(row: Row, w: jax.Array, step: jax.Array | float) -> jax.Array:
    """A kernel as the network sees it."""
    if row.family == "float":
        return w
    if row.family == "rounded":
        return jnp.round(w / step) * step
    quantised = QUANTISERS[row.quantiser](w)
    return w + jax.lax.stop_gradient(quantised - w)


def logits(row: Row, steps: Steps, params: Params, images: jax.Array) -> jax.Array:
    """Of standardised images, shape ``[B, 8, 8, 1]``."""
    w = params
    if row.unit != 1:
        w = {name: row.unit * value for name, value in params.items()}
    kernel_1, kernel_2 = (read(row, w[name], steps[name]) for name in KERNELS)
    hidden = images.reshape(len(images), -1) @ kernel_1 + w["bias_1"][None]
    return jax.nn.relu(hidden) @ kernel_2 + w["bias_2"][None]


def transformation(method: str, adam: Any, key: jax.Array) -> Any:
    """The optimizer of a row around ``adam``."""
    if method == "node_qiaso":
        return qiaso_jax.node_qiaso(optimizer=adam, key=key)
    if method == 'node_qiaso, space="weights"':
        return qiaso_jax.node_qiaso(optimizer=adam, space="weights", key=key)
    if method == "qiaso":
        return qiaso_jax.qiaso(optimizer=adam, key=key)
    return optax.with_extra_args_support(adam)


def losses_of(row: Row, steps: Steps) -> Callable[..., jax.Array]:
    """Cross-entropy of each example as a function of the parameters."""

    def losses(params: Params, images: jax.Array, labels: jax.Array) -> jax.Array:
        return networks.cross_entropy(logits(row, steps, params, images), labels)

    return losses


def training(command: Command, row: Row, train: Batch) -> Callable[..., Params]:
    """A compiled training: ``(rate, key, params, steps) -> params``."""

    @jax.jit
    def trained(
        rate: jax.Array, key: jax.Array, params: Params, steps: Steps
    ) -> Params:
        order_key, state_key = jax.random.split(key)
        tx = transformation(row.method, optax.adam(rate / row.unit), state_key)
        losses = losses_of(row, steps)

        def mean_loss(params: Params, **batch: jax.Array) -> jax.Array:
            return losses(params, **batch).mean()

        alone = row.method.startswith("node_qiaso")
        value_fn = losses if alone else mean_loss

        def step(carry: Any, rows: jax.Array) -> tuple[Any, None]:
            params, state = carry
            batch = {"images": train.images[rows], "labels": train.labels[rows]}
            updates = optax.tree.zeros_like(params)
            if row.method == "Adam":
                updates = jax.grad(mean_loss)(params, **batch)
            updates, state = tx.update(
                updates, state, params, value_fn=value_fn, **batch
            )
            return (optax.apply_updates(params, updates), state), None

        rows = task.minibatches(
            order_key, len(train.labels), command.batch_size, command.epochs
        )
        (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), rows)
        return params

    return trained


def measured(command: Command, row: Row, digits: Digits) -> dict[str, Any]:
    """The accuracies of a row, and its spaces."""
    trained = training(command, row, digits.train)

    def train(rate: float, seed: int) -> tuple[Params, Steps]:
        params = initial(seed, row.unit)
        steps = steps_of(command, row, params)
        params = trained(jnp.float32(rate), jax.random.key(seed), params, steps)
        return jax.block_until_ready(params), steps

    @jax.jit
    def right(model: tuple[Params, Steps], split: Batch) -> jax.Array:
        params, steps = model
        guesses = jnp.argmax(logits(row, steps, params, split.images), axis=-1)
        return jnp.sum(guesses == split.labels)

    found = task.tuned(
        train,
        lambda model, split: int(right(model, split)),
        digits,
        command.rates,
        command.seeds,
    )
    if row.method.startswith("node_qiaso") and "refused" not in found:
        found["spaces"] = spaces(command, row, digits.train)
    return found


def spaces(command: Command, row: Row, train: Batch) -> dict[str, str]:
    """Where ``node_sites`` finds each parameter before training."""
    params = initial(0, row.unit)
    sites = qiaso_jax.node_sites(
        losses_of(row, steps_of(command, row, params)),
        params,
        space="weights" if "weights" in row.method else "auto",
        images=train.images[: command.batch_size],
        labels=train.labels[: command.batch_size],
    )
    return report.spaces(sites)


def page(
    command: Command, digits: Digits, rows: list[Row], reports: list[dict[str, Any]]
) -> str:
    """The table as Markdown."""
    step = "the largest initial weight / 127 of each kernel, fixed"
    notes = NOTES.format(
        hidden=HIDDEN, step=step if command.step is None else f"= {command.step:g}"
    )
    cells = [
        [
            f"{row.family} {row.quantiser}".strip(),
            row.method,
            f"{row.unit:g}",
            *task.cells(each),
            report.spaces_in_words(each["spaces"], KERNELS) if "spaces" in each else "",
        ]
        for row, each in zip(rows, reports, strict=True)
    ]
    columns = ["weights", "method", "unit", "Adam's rate", "accuracy, %", "space"]
    parts = ["# Quantised weights", "", table(columns, cells), notes]
    parts += [task.protocol(command, digits)]
    return "\n".join(parts) + report.refusals([row.name for row in rows], reports)


if __name__ == "__main__":
    raise SystemExit(report.main(run, tyro.cli(Command)))
