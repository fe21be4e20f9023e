"""The tables of faults as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.faults import processes, searching
from benchmarks.markdown import spread, table

HEADING = "## Measured"
"""Of the section of the documentation that is written by the command."""

TRAINING = ("injected", "replaced", "counted", "skipped", "flat", "loss", "accuracy, %")
SEARCH = ("injected", "replaced", "counted", "skipped", "value at the end")
PROCESS = ("optimizer", "signal", "times", "epochs computed again", "result")
FILES = ("read by", "injected", "trials", "refused", "as it was stored", "misread")
LONG = ("optimizer", "steps", "s", "step", "log Σ p", "distance", "worst", "MiB")

TRAININGS = """\
A 64-16-10 network on scikit-learn's digits, {steps} steps on minibatches of 128, Adam
on the displacement; mean and, of loss and accuracy, standard deviation over {seeds}
seeds, with the same start and minibatches under each fault. *Replaced*: losses, or
gradients, that the optimizer saw another value of. *Counted*: the sum of
`info.num_nonfinite`; *skipped* and *flat*: `info.num_skipped` and `info.num_flat` at
the end. *Loss* and *accuracy*: of the centre at the end, on the training and the test
split, without faults. The losses of `node_qiaso` are those of examples: it counts what
their candidates have, of the examples that it draws.

K = 30, and 120 measurements in `factorised_qiaso`; *ranks* is `loss_scaling="rank"` and
eta = 3; the hybrid is `chain(adam(0.01), qiaso(8))`.
"""

MOVED = """\
Of all steps without gradients in which every loss was replaced, the parameters moved in
{moved} of {hit}.
"""

SEARCHES = """\
`ask` and `tell`: the sphere in {dimension} dimensions, K = {candidates}, {steps} steps,
the losses that are left told in a random order; the value is that of the centre.
`minimize(covariance=None)`: {budget:,} evaluations of the sphere, NaN in stripes; the
value is that of the best point. Medians over {seeds} seeds.
"""

PROCESSES = """\
`python -m benchmarks.train` on digits, {epochs} epochs, a checkpoint every {every},
ended at random moments and continued by `--resume --output <folder>`. The result is
compared, in all metrics and in every bit of the last state, with that of a training
left alone.
"""

CHECKPOINTS = """\
A state of `qiaso` with its parameters, damaged at a random place of a random file. *As
it was stored*: the damage was in what is not needed. *Misread*: other numbers, and no
error.
"""

LONG_RUNS = """\
Two weights, the optimum at (1, −2), in one `lax.scan`. *log Σ p*: the largest magnitude
of all steps. *Distance* to the optimum: at the end, and the worst of the last nine
tenths. *MiB*: the growth of the memory of the process in a loop of {calls:,} compiled
calls, after a tenth of them.
"""


def page(content: Mapping[str, Any]) -> str:
    """All tables, without a heading of their own."""
    settings = content["settings"]
    parts = ["### Losses and gradients\n", TRAININGS.format(**settings)]
    for method, rows in grouped(content["trainings"]).items():
        lines = [training_line(row) for row in rows]
        parts += [f"#### {method}\n", table(TRAINING, lines, numbers=True)]
    parts += [moved(content["trainings"])]
    about = {
        "dimension": searching.DIMENSION,
        "candidates": searching.NUM_CANDIDATES,
        "steps": searching.NUM_STEPS,
        "budget": searching.BUDGET,
        "seeds": settings["seeds"],
    }
    parts += ["### Searches\n", SEARCHES.format(**about)]
    for method, rows in grouped(content["searches"]).items():
        lines = [search_line(row) for row in rows]
        parts += [f"#### {method}\n", table(SEARCH, lines, numbers=True)]
    about = {"epochs": processes.EPOCHS, "every": processes.CHECKPOINT_EVERY}
    parts += ["### Processes\n", PROCESSES.format(**about)]
    lines = [process_line(row) for row in content["processes"]]
    parts += [table(PROCESS, lines)]
    parts += ["### Checkpoints\n", CHECKPOINTS]
    lines = [list(row.values()) for row in content["files"]]
    parts += [table(FILES, lines, numbers=True)]
    parts += ["### Long runs\n", LONG_RUNS.format(**settings)]
    lines = [long_line(row) for row in content["long"]]
    parts += [table(LONG, lines, numbers=True)]
    return "\n".join([*parts, f"Written by `{content['command']}`.\n"])


def placed(document: str, text: str) -> str:
    """The document with ``text`` as its last section."""
    return f"{document.partition(HEADING)[0]}{HEADING}\n\n{text}"


def grouped(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The rows of each method."""
    methods = dict.fromkeys(row["method"] for row in rows)
    return {name: [r for r in rows if r["method"] == name] for name in methods}


def training_line(row: Mapping[str, Any]) -> list[str]:
    """One fault in a training."""
    accuracies = [100 * accuracy for accuracy in row["test_accuracy"]]
    return [
        row["injected"],
        *(mean(row[name]) for name in ("hits", "nonfinite", "skipped", "flat")),
        "NaN" if None in row["train_loss"] else spread(row["train_loss"]),
        spread(accuracies, 1),
    ]


def search_line(row: Mapping[str, Any]) -> list[str]:
    """One fault in a search."""
    names = ("hits", "nonfinite", "skipped")
    counts = [mean(row[name]) if name in row else "" for name in names]
    return [row["injected"], *counts, f"{np.median(row['value']):.2g}"]


def process_line(row: Mapping[str, Any]) -> list[object]:
    """One training that was ended."""
    result = "the same, bit for bit" if row["same"] else "another"
    return [row["method"], row["injected"], row["times"], row["again"], result]


def long_line(row: Mapping[str, Any]) -> list[str]:
    """One long run."""
    names = ("unnormalised", "distance", "worst_distance")
    numbers = [f"{row[name]:.1g}" for name in names]
    whole = f"{row['steps']:,}", f"{row['seconds']:.0f}", f"{row['step']:,}"
    return [row["method"], *whole, *numbers, f"{row['growth']:.2f}"]


def moved(rows: Sequence[Mapping[str, Any]]) -> str:
    """In how many steps without information parameters moved."""
    gradient_free = [row for row in rows if "hybrid" not in row["method"]]
    moved, hit = (
        sum(sum(row[name]) for row in gradient_free) for name in ("moved", "steps_hit")
    )
    return MOVED.format(moved=moved, hit=f"{hit:,}")


def mean(counts: Sequence[float]) -> str:
    """Of the seeds, as a whole number if it is one."""
    value = float(np.mean(counts))
    return f"{value:,.0f}" if value >= 100 or value.is_integer() else f"{value:.1f}"
