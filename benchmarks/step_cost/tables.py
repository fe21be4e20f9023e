"""What is compared with what: the tables of ``python -m benchmarks.step_cost``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from benchmarks.cli import progress
from benchmarks.harness.interface import DirectionsName
from benchmarks.step_cost import measure, methods, models, report
from benchmarks.step_cost.measure import Limits
from benchmarks.step_cost.methods import KINDS, RIVALS, Job, named
from benchmarks.step_cost.models import Model, NetworkName

TYPICAL = 30
"""Candidates where chunks are chosen, and where widths and minibatches grow."""
CHUNK = 6
MULTIPLES = (2, 4)
LEAST = 8
"""Fewer candidates do not tell how seconds grow with them."""
GROWN = (30, 512)
"""Candidates whose memory is compared at equal chunks."""
KINDS_GROWN: dict[NetworkName, tuple[DirectionsName, ...]] = {
    "mlp": KINDS,
    "transformer": ("low_rank",),
}


def of_network(
    name: NetworkName,
    batch_size: int,
    candidates: Sequence[int],
    chunks: Sequence[int],
    limits: Limits,
) -> dict[str, Any]:
    """The tables of one network, as in ``results.json``."""
    model = models.BUILDERS[name](batch_size)
    evaluation: int | None = None
    at_a_time: dict[str, int | None] = dict.fromkeys(KINDS)
    if name != "mlp":
        number = typical(candidates)
        evaluation, at_a_time = chosen(model, number, chunks, limits.memory)
    tables = {}
    for number in candidates:
        progress(f"{name}, K = {number}")
        tables[str(number)] = measure.measured(
            jobs(name, model, number, evaluation, at_a_time), report.UNITS, limits
        )
    return {
        "parameters": model.size,
        "batch_size": batch_size,
        "evaluation": evaluation,
        "chunks": at_a_time,
        "candidates": tables,
    }


def chosen(
    model: Model, number: int, chunks: Sequence[int], memory: float
) -> tuple[int | None, dict[str, int | None]]:
    """How many candidates at a time are fastest, dense ones and each kind of ours."""
    evaluation = measure.fastest(
        (1, None), partial(methods.evaluation, model, number), memory
    )
    tried = (*(chunk for chunk in chunks if chunk < number), None)
    at_a_time = {
        kind: measure.fastest(
            tried, partial(methods.qiaso, model, number, kind), memory
        )
        for kind in KINDS
    }
    progress(f"  at a time: evaluation {evaluation}, {at_a_time}")
    return evaluation, at_a_time


def jobs(
    network: str,
    model: Model,
    number: int,
    evaluation: int | None,
    at_a_time: dict[str, int | None],
) -> dict[str, Callable[[], Job]]:
    """What takes turns in one table."""
    found = units(model, number, evaluation)
    for kind in KINDS:
        found[kind] = partial(methods.qiaso, model, number, kind, at_a_time[kind])
    if network == "mlp":
        if number > CHUNK:
            for kind in KINDS:
                found[named(kind, CHUNK)] = partial(
                    methods.qiaso, model, number, kind, CHUNK
                )
        found["node space"] = partial(methods.node_space, model, number)
    if network != "transformer":  # A cycle of which takes minutes.
        found["printed form"] = partial(methods.printed, model, number)
    for rival in RIVALS:
        found[rival] = partial(methods.rival, model, rival, number, evaluation)
    return found


def units(
    model: Model, number: int, evaluation: int | None
) -> dict[str, Callable[[], Job]]:
    """What ratios are to, in the order of ``report.UNITS``."""
    made = (
        partial(methods.evaluation, model, number, evaluation),
        partial(methods.inference, model, number),
        partial(methods.adam, model),
    )
    return dict(zip(report.UNITS, made, strict=True))


def typical(candidates: Sequence[int]) -> int:
    """The number of candidates that is nearest to ``TYPICAL`` from below, or least."""
    return max((k for k in candidates if k <= TYPICAL), default=min(candidates))


def of_scaling(
    batch_size: int, candidates: Sequence[int], limits: Limits
) -> dict[str, Any]:
    """Rows of the perceptron at several widths, and at several minibatches."""
    number = typical(candidates)

    def rows(model: Model) -> dict[str, Any]:
        found = units(model, number, None)
        for kind in KINDS:
            found[kind] = partial(methods.qiaso, model, number, kind)
        return measure.measured(found, report.UNITS, limits)

    progress("mlp, at several widths and minibatches")
    start = models.mlp(batch_size)
    found = rows(start)
    widths, batches = {str(start.size): found}, {str(batch_size): found}
    for multiple in MULTIPLES:
        hidden = tuple(multiple * width for width in models.HIDDEN)
        wide = models.mlp(batch_size, hidden)
        widths[str(wide.size)] = rows(wide)
        size = multiple * batch_size
        batches[str(size)] = rows(models.mlp(size))
    return {"weights (mlp)": widths, "examples (mlp)": batches}


def exponents(
    networks: dict[str, Any], scaling: dict[str, Any]
) -> dict[str, dict[str, float]]:
    """How seconds grow with candidates, of each network, with weights and examples."""
    axes = {
        f"K ({name})": {
            number: rows
            for number, rows in found["candidates"].items()
            if int(number) >= LEAST
        }
        for name, found in networks.items()
    } | scaling
    return {axis: of_axis(tables) for axis, tables in axes.items()}


def of_axis(tables: dict[str, Any]) -> dict[str, float]:
    """The exponent of every method that was timed at two sizes or more."""
    found = {}
    for name in dict.fromkeys(name for rows in tables.values() for name in rows):
        points = [
            (float(size), rows[name]["seconds"])
            for size, rows in tables.items()
            if "seconds" in rows.get(name, ())
        ]
        if len(points) > 1:
            found[name] = round(measure.exponent(*zip(*points, strict=True)), 3)
    return found


def of_memory(batch_sizes: Mapping[NetworkName, int]) -> dict[str, Any]:
    """Temporaries and outputs at few and at many candidates, in chunks of six.

    They are compiled alone.
    """
    found: dict[str, Any] = {}
    for network, kinds in KINDS_GROWN.items():
        if network not in batch_sizes:
            continue
        model = models.BUILDERS[network](batch_sizes[network])
        for kind in kinds:
            about = {}
            for number in GROWN:
                job = methods.qiaso(model, number, kind, CHUNK)
                row = measure.compiled(job).about
                about[str(number)] = row["temporary_bytes"] + row["output_bytes"]
            found[f"{network}, {named(kind, CHUNK)}"] = {"bytes": about}
    return found
