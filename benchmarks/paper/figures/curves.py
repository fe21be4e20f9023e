"""Convergence curves with bands, as data and as a figure."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.paper.forms import FORMS
from benchmarks.paper.study import Study

FORMS_DRAWN = (
    "sgd",
    "adam",
    "nadam",
    "rmsprop",
    "faithful",
    "working",
    "node",
    "hybrid",
)


def measure(study: Study) -> dict[str, Any]:
    """Mean and standard deviation over seeds of the curves of every form."""
    rows = []
    for form in FORMS_DRAWN:
        run = study.run(study.mnist, form)
        if run is None:
            continue
        row: dict[str, Any] = {"form": form, "protocol": str(run.protocol)}
        for name in ("train_loss", "test_accuracy"):
            values = run.curves[name]
            row[name] = values.mean(axis=1).tolist()
            row[name + "_sd"] = values.std(axis=1).tolist()
        row["rises"] = float(np.mean(np.diff(run.curves["train_loss"], axis=0) > 0))
        rows.append(row)
    return {"rows": rows}


def figure(rows: list[dict[str, Any]]) -> Figure:
    """Training loss and test accuracy over epochs, ± one standard deviation."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    panels: Any = figure.subplots(1, 2)
    for row in rows:
        for axes, name in zip(panels, ("train_loss", "test_accuracy"), strict=True):
            mean, sd = np.array(row[name]), np.array(row[name + "_sd"])
            epochs = np.arange(1, len(mean) + 1)
            (line,) = axes.plot(epochs, mean, label=FORMS[row["form"]].label)
            axes.fill_between(
                epochs, mean - sd, mean + sd, alpha=0.2, color=line.get_color()
            )
    panels[0].set(xlabel="epoch", ylabel="training loss", yscale="log", xscale="log")
    panels[1].set(xlabel="epoch", ylabel="test accuracy", xscale="log")
    panels[0].legend(fontsize="small")
    for axes in panels:
        axes.grid(alpha=0.3)
    return figure
