"""Figure 4: convergence on MNIST, with bands over seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.paper.columns import label, protocol, tabulated
from benchmarks.paper.forms import QIASO
from benchmarks.paper.runs import Run
from benchmarks.paper.section import FULL_LENGTH, Section, Verdict, Word, judged
from benchmarks.paper.study import Study

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
    figures = {"figure4_convergence.png": figure(rows)} if rows else {}
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


def figure(rows: list[dict[str, Any]]) -> Figure:
    """Training loss and test accuracy over epochs, ± one standard deviation."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    panels: Any = figure.subplots(1, 2)
    for axes, name in zip(panels, CURVES, strict=True):
        for row in rows:
            mean, sd = np.array(row[name]), np.array(row[f"{name}_sd"])
            epochs = np.arange(1, len(mean) + 1)
            (line,) = axes.plot(epochs, mean, label=label(row))
            axes.fill_between(
                epochs, mean - sd, mean + sd, alpha=0.2, color=line.get_color()
            )
        axes.set(xlabel="epoch", xscale="log")
        axes.grid(alpha=0.3)
    panels[0].set(ylabel="training loss", yscale="log")
    panels[1].set(ylabel="test accuracy")
    panels[0].legend(fontsize="small")
    return figure
