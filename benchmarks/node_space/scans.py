"""``python -m benchmarks.node_space.scans``: scans, attention and convolutions.

Seconds to compile one jitted update of a GRU against the length of its scan, the space
of each parameter, and cosines of single estimates to the gradient in every space; the
same cosines for one layer of attention and a small CNN, so that what ``space="auto"``
picks can be held against the best. Leaves ``scans.json`` and ``scans.md`` in the output
folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from jax.experimental.compilation_cache import compilation_cache
from rich.console import Console

import qiaso_jax
from benchmarks.harness import networks
from benchmarks.markdown import table
from benchmarks.node_space import report, scan_models
from benchmarks.node_space.scan_models import Model, ModelName, Params

Space = Literal["auto", "node", "example", "weights"]

NOTES = """\
A GRU of {hidden} units on {inputs} inputs (`lax.scan` over T), one layer of attention
(T = {attention}, D = {width}) and two convolutions, at their random start, on random
inputs with the labels of the same model at other random parameters; minibatch
{batch_size}, K = {candidates}, examples {examples}, all else the defaults of
`node_qiaso`.

- *compile*: seconds to trace, lower and compile one jitted `update`, without the
  persistent cache, in a process that has compiled others before.
- *step*: milliseconds of one compiled update, the median.
- *spaces*: of the kernels, as `node_sites` lists them where `space` is as in the row: a
  parameter for which that is not to be had is in another.
- The column of a kernel has the cosine of one estimate to `jax.grad` of the mean loss,
  mean ± standard error of {steps} estimates on one minibatch, and behind the slash the
  cosine of their mean.
"""

SUMMARY = """\
*auto / best*: the mean over the kernels of the cosines under `space="auto"`, by that
of the best of the other spaces; *lowest*: the least such ratio of one kernel to its
own best space.
"""


class Case(NamedTuple):
    """A model, and the length of its scan, ``None`` where it has none."""

    model: ModelName
    length: int | None

    @property
    def name(self) -> str:
        return self.model if self.length is None else f"{self.model}, T = {self.length}"


@dataclasses.dataclass(frozen=True)
class Command:
    """Measures compile times and cosines on a GRU, attention and a CNN."""

    output: Path = report.RESULTS
    """Folder for scans.json and scans.md."""
    models: tuple[ModelName, ...] = get_args(ModelName)
    lengths: tuple[int, ...] = (16, 64, 65, 256)
    """T of the GRU."""
    spaces: tuple[Space, ...] = get_args(Space)
    steps: int = 200
    """Estimates whose cosines are averaged."""
    candidates: int = 30
    batch_size: int = 64
    examples: float | None = None
    """Share of the minibatch with candidates; None for the default of node_qiaso."""
    seed: int = 0
    """Of the parameters, the data and the noise."""


def run(command: Command, console: Console) -> None:
    """Writes everything; raises ``UserError`` for what a user can mend."""
    check(command)
    rows = []
    with without_cache():
        warm_up()
        for case in cases(command):
            for space in command.spaces:
                rows.append(case._asdict() | {"space": space})
                rows[-1] |= measured(command, case, space)
                progress = f"{case.name}, {space}: {in_short(rows[-1])}"
                console.print(progress, style="dim", markup=False, highlight=False)
    content = {
        "rows": rows,
        "auto": [
            case._asdict() | each
            for case in cases(command)
            if (each := auto_and_best(of_case(rows, case)))
        ],
    }
    report.write(command, "scans", content, page(command, content))


def check(command: Command) -> None:
    """Raises ``UserError`` for numbers that cannot be."""
    report.check_named(command, "models", "spaces")
    report.check_counts(command, lengths=1, steps=2, batch_size=4)
    report.check_candidates(command)


def cases(command: Command) -> Iterator[Case]:
    """The GRU at each length, and the other models once."""
    for model in command.models:
        if model == "gru":
            yield from (Case(model, length) for length in command.lengths)
        else:
            yield Case(model, None)


@contextlib.contextmanager
def without_cache() -> Iterator[None]:
    """Compiles everything anew, as in a first run on a machine."""
    before = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    # JAX decides once per process whether it uses the cache.
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def warm_up() -> None:
    """Compiles some update, as the first in a process takes longer."""

    def losses(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
        return networks.cross_entropy(jnp.tanh(x) @ params["kernel"], y)

    params = {"kernel": jnp.ones((3, 3))}
    tx = qiaso_jax.node_qiaso(optimizer=optax.sgd(1.0))
    batch = {"x": jnp.ones((8, 3)), "y": jnp.zeros(8, jnp.int32)}
    update = update_of(tx, losses)
    update.lower(tx.init(params), params, batch).compile()


def update_of(tx: Any, losses: Callable[..., jax.Array]) -> Any:
    """One jitted update of a training."""

    @jax.jit
    def update(
        state: Any, params: Params, batch: dict[str, jax.Array]
    ) -> tuple[Params, Any]:
        return tx.update(None, state, params, value_fn=losses, **batch)

    return update


def measured(command: Command, case: Case, space: Space) -> dict[str, Any]:
    """A row of the results; the sentence of a refusal where there is one."""
    model = scan_models.build(case.model, case.length or 1)
    params_key, batch_key = jax.random.split(jax.random.key(command.seed))
    params = model.init(params_key)
    batch = scan_models.batch_of(model, batch_key, command.batch_size)
    settings: dict[str, Any] = {"space": space, "key": command.seed}
    if command.examples is not None:
        settings["examples"] = command.examples
    tx = qiaso_jax.node_qiaso(command.candidates, optimizer=optax.sgd(1.0), **settings)
    state = tx.init(params)
    began = time.perf_counter()
    try:
        lowered = update_of(tx, model.losses).lower(state, params, batch)
    except report.REFUSALS as error:
        return {"refused": str(error)}
    traced = time.perf_counter()
    update = lowered.compile()
    compiled = time.perf_counter()
    sites = qiaso_jax.node_sites(
        model.losses, params, space=space, x=batch["x"], y=batch["y"]
    )
    return {
        "trace_seconds": round(traced - began, 3),
        "compile_seconds": round(compiled - traced, 3),
        "seconds": round(compiled - began, 3),
        "spaces": report.spaces(sites),
        "sites": report.listed(sites),
    } | compared(command.steps, update, state, params, batch, model)


def compared(
    steps: int,
    update: Any,
    state: Any,
    params: Params,
    batch: dict[str, jax.Array],
    model: Model,
) -> dict[str, Any]:
    """Cosines of the estimates to the gradient, and the seconds of a step."""
    mean_loss = jax.jit(jax.grad(lambda p, b: model.losses(p, **b).mean()))
    gradient = kernels_of(mean_loss(params, batch))
    estimates, seconds = [], []
    for _ in range(steps):
        began = time.perf_counter()
        updates, state = jax.block_until_ready(update(state, params, batch))
        seconds.append(time.perf_counter() - began)
        estimates.append(kernels_of(updates))
    found = {}
    for name, exact in gradient.items():
        # The optimizer is plain descent at rate 1: an update is minus an estimate.
        singles = [-cosine(each[name], exact) for each in estimates]
        mean = np.mean([each[name] for each in estimates], axis=0)
        found[name] = {
            "cosine": float(np.mean(singles)),
            "standard_error": float(np.std(singles, ddof=1) / math.sqrt(steps)),
            "cosine_of_mean": -cosine(mean, exact),
        }
    return {"step_seconds": round(float(np.median(seconds)), 5), "kernels": found}


def kernels_of(params: Params) -> dict[str, np.ndarray]:
    """The leaves with two axes or more, in float64."""
    return {
        name: np.asarray(leaf, np.float64)
        for name, leaf in params.items()
        if leaf.ndim > 1
    }


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Of two arrays as vectors; 0 where one of them is zero."""
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.clip(np.vdot(a, b) / norms, -1, 1)) if norms else 0.0


def in_short(row: dict[str, Any]) -> str:
    """A row as progress shows it."""
    if "refused" in row:
        return f"refused: {row['refused']}"
    cosines = ", ".join(
        f"{name} {each['cosine']:.2f}" for name, each in row["kernels"].items()
    )
    return f"{row['seconds']:.1f} s to compile; {cosines}"


def of_case(rows: list[dict[str, Any]], case: Case) -> list[dict[str, Any]]:
    """The rows of a model at a length."""
    return [row for row in rows if Case(row["model"], row["length"]) == case]


def auto_and_best(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """What "auto" has of the best space; ``None`` where one of them is missing."""
    cosines = {
        row["space"]: {name: each["cosine"] for name, each in row["kernels"].items()}
        for row in rows
        if "kernels" in row
    }
    auto = cosines.pop("auto", None)
    if auto is None or not cosines:
        return None
    means = {space: float(np.mean([*each.values()])) for space, each in cosines.items()}
    best = max(means, key=lambda space: means[space])
    mean = float(np.mean([*auto.values()]))
    highest = {name: max(each[name] for each in cosines.values()) for name in auto}
    errors = {row["space"]: error_of_mean(row) for row in rows if "kernels" in row}
    relative = math.hypot(errors["auto"] / mean, errors[best] / means[best])
    return {
        "auto": mean,
        "best": means[best],
        "best_space": best,
        "ratio": mean / means[best],
        "standard_error": abs(mean / means[best]) * relative,
        "lowest_ratio": min(auto[name] / highest[name] for name in auto),
    }


def error_of_mean(row: dict[str, Any]) -> float:
    """The standard error of the mean over the kernels, as if they were independent."""
    errors = [each["standard_error"] for each in row["kernels"].values()]
    return math.hypot(*errors) / len(errors)


def page(command: Command, content: dict[str, Any]) -> str:
    """The tables as Markdown."""
    notes = NOTES.format(
        hidden=scan_models.HIDDEN,
        inputs=scan_models.INPUT,
        attention=scan_models.ATTENTION_LENGTH,
        width=scan_models.ATTENTION_WIDTH,
        examples=report.examples_in_words(command),
        batch_size=command.batch_size,
        candidates=command.candidates,
        steps=command.steps,
    )
    parts = ["# Scans, attention and convolutions", "", notes]
    for model in command.models:
        rows = [row for row in content["rows"] if row["model"] == model]
        parts += [f"## {model}", "", cosine_table(rows)]
        names = [f"{row['space']}, T = {row['length']}" for row in rows]
        parts += [report.refusals(names, rows)]
    if content["auto"]:
        parts += ['## What "auto" has of the best', "", auto_table(content["auto"])]
        parts += [SUMMARY]
    return "\n".join(parts)


def cosine_table(rows: list[dict[str, Any]]) -> str:
    """All rows of one model."""
    names = next((list(row["kernels"]) for row in rows if "kernels" in row), [])
    cells = []
    for row in rows:
        start = [row["length"] or "", row["space"]]
        if "refused" in row:
            cells.append([*start, "", "", "refused", *[""] * len(names)])
            continue
        cells.append(
            [
                *start,
                f"{row['seconds']:.1f}",
                f"{1000 * row['step_seconds']:.1f}",
                report.spaces_in_words(row["spaces"], names),
                *(
                    f"{each['cosine']:.2f} ± {each['standard_error']:.2f} / "
                    f"{each['cosine_of_mean']:.2f}"
                    for each in row["kernels"].values()
                ),
            ]
        )
    columns = ["T", "space", "compile, s", "step, ms", "spaces", *names]
    return table(columns, cells)


def auto_table(found: list[dict[str, Any]]) -> str:
    """A row per model and length."""
    cells = [
        [
            Case(each["model"], each["length"]).name,
            f"{each['auto']:.3f}",
            f"{each['best']:.3f}",
            each["best_space"],
            f"{each['ratio']:.2f} ± {each['standard_error']:.2f}",
            f"{each['lowest_ratio']:.2f}",
        ]
        for each in found
    ]
    columns = ["model", "auto", "best", "space", "auto / best", "lowest"]
    return table(columns, cells)


if __name__ == "__main__":
    raise SystemExit(report.main(run, tyro.cli(Command)))
