"""Figure 8: what each component of QIASO adds, as bars and as curves."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from benchmarks.paper.figures.accuracy_axis import accuracy_axis, dots
from benchmarks.paper.section import Section
from benchmarks.paper.tables import table6
from qiaso_jax import plot

measure = table6.measure


def section(content: dict[str, Any]) -> Section:
    """Accuracies of the variants beside the paper's, and their test loss."""
    rows = [row for row in content["rows"] if "accuracy" in row]
    return Section(
        "Figure 8: ablation",
        "The faithful form, measured, and the paper.\n",
        (),
        {"figure8_ablation.svg": figure(rows)},
    )


@plot.style()
def figure(rows: list[dict[str, Any]]) -> Figure:
    """A, accuracies after the last epoch; B, test loss over the epochs."""
    figure = Figure(figsize=(plot.WIDTH, 7), layout="constrained")
    panels: Any = figure.subplots(2, 1)
    places = np.arange(len(rows))
    labels = [table6.VARIANTS[row["variant"]][0] for row in rows]
    theirs = [table6.PAPER[row["variant"]][0] for row in rows]
    ours = [np.mean(row["accuracy"]) for row in rows]
    dots(panels[0], places + 0.12, theirs, None, plot.GREY, "the paper")
    dots(panels[0], places - 0.12, ours, None, plot.COLOURS[0], "measured")
    panels[0].set_yticks(places, labels)
    panels[0].set(title="A", ylim=(len(rows) - 0.5, -0.5))
    panels[0].grid(False, axis="y")
    accuracy_axis(panels[0], "x")
    for row, label in zip(rows, labels, strict=True):
        epochs = np.arange(1, len(row["curve"]) + 1)
        plot.curve(epochs, row["curve"], ax=panels[1], label=label)
    panels[1].set(title="B", xlabel="epoch", ylabel="test loss (nats)", yscale="log")
    panels[1].xaxis.set_major_locator(MaxNLocator(integer=True))
    if rows:
        panels[0].legend()
        panels[1].legend(loc="upper right", bbox_to_anchor=(1, -0.25), ncols=2)
    plot.caption(
        figure,
        "MNIST, MLP 128-64, the faithful form of the algorithm as it is printed, with "
        "one part left out at a time; means over seeds. Axis A is logarithmic in the "
        "error.",
    )
    return figure
