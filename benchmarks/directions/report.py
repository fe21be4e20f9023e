"""The two tables of ``python -m benchmarks.directions``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.directions import training
from benchmarks.markdown import spread, table

FOOT = "Written by `python -m benchmarks.directions`."

RANKS = """\
# What rank costs, and what it buys

*Variance*: of the pseudo-gradient of a linear loss by one antithetic pair, summed over
the weights and in units of that of dense signs, ± a standard error, from {draws} draws.
*Accuracy*: the MLP on {dataset}'s validation split, percent, mean ± standard deviation
over {seeds} seeds, K = {candidates}, minibatches of {batch_size}, Adam at a constant
rate of {rate:g}; after {epochs} epochs, which are equal evaluations, and after as many
seconds as the quickest took for these, {seconds:.0f}, between epochs by interpolation.
The seeds run side by side. *rank r* has factors of signs, *rank r, normal* normal ones;
*signs* and *normal* are dense.
"""
DEFAULT = """\
# Which directions are the default

What is reached at equal evaluations, mean ± standard deviation over {seeds} seeds, with
the best of three rates for each, chosen with another seed. *Rastrigin* has one vector,
for which low rank is dense signs.
"""
REACHED = {
    "mlp": "validation accuracy, %",
    "cnn": "validation accuracy, %",
    "transformer": "loss",
    "cartpole": "return",
    "rastrigin": "value",
}


def ranks(settings: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    """Variance and accuracies of every kind."""
    shapes = content["variance"]
    runs = content["accuracy"]
    unit = {shape: rows["signs"]["variance"] for shape, rows in shapes.items()}
    common = min((run["seconds"][-1] for run in runs.values()), default=0.0)
    rows = []
    for name in next(iter(shapes.values())):
        cells = [
            f"{found[name]['variance'] / unit[shape]:.3f} ± "
            f"{found[name]['standard_error'] / unit[shape]:.3f}"
            for shape, found in shapes.items()
        ]
        rows.append([name, *cells, *_accuracies(runs.get(name), common)])
    columns = [f"variance, {shape}" for shape in shapes]
    columns += ["accuracy", "at equal seconds", "seconds per epoch"]
    text = RANKS.format(**settings, seconds=common)
    return "\n".join([text, table(["", *columns], rows, numbers=True), FOOT, ""])


def _accuracies(run: Mapping[str, Any] | None, common: float) -> list[str]:
    if run is None:
        return ["", "", ""]
    curves = run["accuracy"]
    then = [training.at(run["seconds"], curve, common) for curve in curves]
    per_epoch = run["seconds"][-1] / (len(run["seconds"]) - 1)
    return [spread([curve[-1] for curve in curves]), spread(then), f"{per_epoch:.2f}"]


def default(settings: Mapping[str, Any], tasks: Mapping[str, Any]) -> str:
    """One line for each task and kind."""
    rows = []
    for task, kinds in tasks.items():
        for kind, row in kinds.items():
            values = [value for value in row["values"] if value is not None]
            rows.append(
                [
                    f"{task}, {kind}",
                    REACHED[task],
                    _reached(values),
                    f"{1e3 * row['seconds_per_step']:.3g}",
                    f"{row['rate']:g}",
                ]
            )
    columns = ["", "", "reached", "ms of a step", "rate"]
    text = DEFAULT.format(**settings)
    return "\n".join([text, table(columns, rows, numbers=True), FOOT, ""])


def _reached(values: list[float]) -> str:
    if not values:
        return "diverged"
    small = max(map(abs, values)) < 1e-2
    return spread(values, 1, "e") if small else spread(values)
