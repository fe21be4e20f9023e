"""Figure 4: convergence on MNIST, with bands over seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.paper.columns import label, protocol, tabulated
from benchmarks.paper.figures.accuracy_axis import accuracy_axis
from benchmarks.paper.forms import QIASO
from benchmarks.paper.runs import Run
from benchmarks.paper.section import (
    FORMS_IN_WORDS,
    FULL_LENGTH,
    Section,
    Verdict,
    Word,
    judged,
)
from benchmarks.paper.study import Study
from qiaso_jax import plot

FORMS_DRAWN = ("sgd", "adam", "nadam", "rmsprop", *QIASO)
CURVES = ("train_loss", "test_accuracy")


def measure(study: Study) -> dict[str, Any]:
    """Curves of every form that was run."""
    rows = [study.row(study.mnist, form, kept) for form in FORMS_DRAWN]
    return {"rows": [row for row in rows if "missing" not in row]}


def kept(run: Run) -> dict[str, Any]:
    """Mean and standard deviation over seeds, and how often the loss rises."""
    curves = {name: run.curves[name] for name in CURVES}
    return {
        **{name: values.mean(axis=1) for name, values in curves.items()},
        **{f"{name}_sd": values.std(axis=1) for name, values in curves.items()},
        "rises": np.mean(np.diff(run.curves["train_loss"], axis=0) > 0),
    }


def section(content: dict[str, Any]) -> Section:
    """The curves, and how often each rises."""
    rows = content["rows"]
    body = tabulated(
        rows,
        ("optimizer", label),
        ("last training loss", lambda row: f"{row['train_loss'][-1]:.2g}"),
        ("epochs with a rise", lambda row: f"{100 * row['rises']:.0f} %"),
        ("protocol", protocol),
    )
    figures = {"figure4_convergence.svg": figure(rows)} if rows else {}
    title = "Figure 4: convergence on MNIST"
    return Section(title, body, verdicts(rows), figures)


def verdicts(rows: list[dict[str, Any]]) -> list[Verdict]:
    """Whether the training loss of QIASO falls in every epoch."""
    return [
        Verdict(
            f"Figure 4: QIASO's loss falls monotonically ({label(row)})",
            f"it rises after {100 * row['rises']:.0f} % of epochs ({row['protocol']})",
            word(row),
        )
        for row in rows
        if row["form"] in QIASO
    ]


def word(row: dict[str, Any]) -> Word:
    """A rise refutes the claim; only all of the paper's epochs can bear it out."""
    falls = row["rises"] == 0
    if falls and not row["protocol"].startswith(FULL_LENGTH):
        return "not measured"
    return judged(falls, row["form"])


@plot.style()
def figure(rows: list[dict[str, Any]]) -> Figure:
    """Training loss and test accuracy over epochs, ± one standard deviation."""
    figure = Figure(figsize=(plot.WIDTH, 8), layout="constrained")
    panels: Any = figure.subplots(2, 1, sharex=True)
    for row in rows:
        mean, sd = np.array(row["train_loss"]), np.array(row["train_loss_sd"])
        epochs = np.arange(1, len(mean) + 1)
        # One that reaches below 0 has no end on a logarithmic axis.
        low = np.where(mean > sd, mean - sd, np.nan)
        plot.curve(epochs, mean, (low, mean + sd), ax=panels[0], label=label(row))
        error = 100 * (1 - np.array(row["test_accuracy"]))
        sd = 100 * np.array(row["test_accuracy_sd"])
        plot.curve(epochs, error, (error - sd, error + sd), ax=panels[1])
    panels[0].set(ylabel="training loss (nats)", yscale="log", xscale="log")
    panels[1].set_xlabel("epoch")
    accuracy_axis(panels[1], "y")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2)
    plot.caption(
        figure,
        "MNIST, MLP 128-64: mean over seeds and, where it is smaller, its standard "
        "deviation; epochs and seeds are in the table. The lower axis is logarithmic "
        f"in the error. {FORMS_IN_WORDS}",
    )
    return figure
