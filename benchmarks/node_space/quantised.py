"""``python -m benchmarks.node_space.quantised``: weights that are read through steps.

An MLP 64-128-10 with ReLU on scikit-learn's digits whose kernels are rounded in the
forward pass, written in the two usual ways: ``round(w / s) * s``, and straight-through,
``w + stop_gradient(q(w) - w)``. Node space with its defaults, and beside it what else
can train such a network. Leaves ``quantised.json`` and ``quantised.md`` in the output
folder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

import qiaso_jax
from benchmarks import cli
from benchmarks.cli import require_positive, require_some
from benchmarks.harness import mlp, networks
from benchmarks.harness.mlp import Params
from benchmarks.harness.networks import Batch
from benchmarks.node_space import digits as task
from benchmarks.node_space import report
from benchmarks.node_space.digits import Digits

Step = float | jax.Array
Family = Literal["float", "rounded", "straight-through"]

HIDDEN = 128

NOTES = """\
The network is 64-{hidden}-10 with ReLU; its two kernels are read through a quantiser,
its biases are not.

- *float*: no quantiser.
- *rounded*: `round(w / s) * s` with s = {step:g}.
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

    @property
    def space(self) -> Literal["weights", "auto"] | None:
        """The argument of ``node_qiaso``; None for another method."""
        if self.method.startswith("node_qiaso"):
            return "weights" if "weights" in self.method else "auto"
        return None


@dataclasses.dataclass(frozen=True)
class Command(task.Protocol):
    """Trains an MLP with quantised weights on scikit-learn's digits."""

    epochs: int = 60
    families: tuple[Family, ...] = get_args(Family)
    units: tuple[float, ...] = (1.0, 0.1, 0.01)
    """In which the parameter that is rounded is stored."""
    step: float = 0.01
    """s of ``round(w / s) * s``."""


def main(command: Command) -> None:
    """Writes everything."""
    require_some(command, "families", "units")
    require_positive(command, "units", "step")
    digits = task.load(command)
    rows = [
        {"name": row.name}
        | row._asdict()
        | task.said(row.name, measured(command, row, digits))
        for row in rows_of(command)
    ]
    content = {"seeds": list(range(command.seeds)), "rows": rows}
    report.write(command, "quantised", content, page(command, digits, rows))


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
    step = jnp.max(jnp.abs(w)) / 127
    return jnp.round(w / step) * step


QUANTISERS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "binary": binary,
    "2-bit": two_bit,
    "8-bit": eight_bit,
}


def read(row: Row, w: jax.Array, step: Step) -> jax.Array:
    """A kernel as the network sees it."""
    if row.family == "float":
        return w
    if row.family == "rounded":
        return jnp.round(w / step) * step
    quantised = QUANTISERS[row.quantiser](w)
    return w + jax.lax.stop_gradient(quantised - w)


def logits(row: Row, model: tuple[Step, Params], images: jax.Array) -> jax.Array:
    """Of standardised images, shape ``[B, 8, 8, 1]``; the model: step, weights."""
    step, w = model
    if row.unit != 1:
        w = {name: row.unit * value for name, value in w.items()}
    kernels = {name: read(row, w[name], step) for name in mlp.KERNELS}
    return mlp.logits(w | kernels, images)


def losses(
    row: Row, step: Step, params: Params, images: jax.Array, labels: jax.Array
) -> jax.Array:
    """Cross-entropy of each example."""
    return networks.cross_entropy(logits(row, (step, params), images), labels)


def transformation(row: Row, adam: Any, key: jax.Array) -> Any:
    """The optimizer of a row around ``adam``."""
    if row.space:
        return qiaso_jax.node_qiaso(optimizer=adam, space=row.space, key=key)
    if row.method == "qiaso":
        return qiaso_jax.qiaso(optimizer=adam, key=key)
    return optax.with_extra_args_support(adam)


def training(command: Command, row: Row, train: Batch) -> Callable[..., Params]:
    """A compiled training: ``(rate, key, params, step) -> params``."""

    @jax.jit
    def trained(
        rate: jax.Array, key: jax.Array, params: Params, step_size: Step
    ) -> Params:
        of_examples = partial(losses, row, step_size)

        def mean_loss(params: Params, **batch: jax.Array) -> jax.Array:
            return of_examples(params, **batch).mean()

        order_key, state_key = jax.random.split(key)
        tx = transformation(row, optax.adam(rate / row.unit), state_key)
        value_fn = of_examples if row.space else mean_loss

        def step(carry: Any, batch: Batch, _: Any) -> Any:
            params, state = carry
            grads, data = None, batch._asdict()
            if row.method == "Adam":
                grads = jax.grad(mean_loss)(params, **data)
            updates, state = tx.update(grads, state, params, value_fn=value_fn, **data)
            return optax.apply_updates(params, updates), state

        return task.fit(step, (params, tx.init(params)), train, command, order_key)[0]

    return trained


def measured(command: Command, row: Row, digits: Digits) -> dict[str, Any]:
    """The accuracies of a row, and its spaces."""
    trained = training(command, row, digits.train)

    def train(rate: jax.Array, seed: int) -> tuple[Step, Params]:
        start = mlp.initial(seed, HIDDEN, row.unit)
        return command.step, trained(rate, jax.random.key(seed), start, command.step)

    def sites() -> Any:
        first = Batch(*(each[: command.batch_size] for each in digits.train))
        return qiaso_jax.node_sites(
            partial(losses, row, command.step),
            mlp.initial(0, HIDDEN, row.unit),
            space=row.space or "auto",
            **first._asdict(),
        )

    return task.measured(
        train,
        partial(logits, row),
        sites if row.space else None,
        digits,
        command,
    )


def page(command: Command, digits: Digits, rows: list[dict[str, Any]]) -> str:
    """The table as Markdown."""
    lines = [
        [
            f"{row['family']} {row['quantiser']}".strip(),
            row["method"],
            f"{row['unit']:g}",
            *task.cells(row),
            report.spaces_in_words(row.get("spaces", {}), mlp.KERNELS),
        ]
        for row in rows
    ]
    notes = NOTES.format(hidden=HIDDEN, step=command.step)
    columns = ["weights", "method", "unit", "Adam's rate", "accuracy, %", "space"]
    text = task.page("Quantised weights", columns, lines, notes, command, digits)
    return text + report.refusals({row["name"]: row for row in rows})


if __name__ == "__main__":
    cli.run(main, Command, __doc__)
