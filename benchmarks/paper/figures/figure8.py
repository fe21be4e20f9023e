"""Figure 8: what each component of QIASO adds, as bars and as curves."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from benchmarks.paper.section import Section
from benchmarks.paper.tables import table6

measure = table6.measure


def section(content: dict[str, Any]) -> Section:
    """Accuracies of the variants beside the paper's, and their test loss."""
    rows = [row for row in content["rows"] if "accuracy" in row]
    figure = Figure(figsize=(11, 4), layout="constrained")
    panels: Any = figure.subplots(1, 2)
    for i, row in enumerate(rows):
        name = row["variant"]
        panels[0].bar(i - 0.2, np.mean(row["accuracy"]), 0.4, color="tab:blue")
        panels[0].bar(i + 0.2, table6.PAPER[name][0], 0.4, color="lightgrey")
        epochs = np.arange(1, len(row["curve"]) + 1)
        panels[1].plot(epochs, row["curve"], label=table6.VARIANTS[name][0])
    labels = [table6.VARIANTS[row["variant"]][0] for row in rows]
    panels[0].set_xticks(
        range(len(rows)), labels, rotation=20, ha="right", fontsize="small"
    )
    panels[0].set(ylabel="test accuracy, %")
    panels[1].set(xlabel="epoch", ylabel="test loss", yscale="log")
    panels[1].xaxis.set_major_locator(MaxNLocator(integer=True))
    if rows:
        figure.legend(loc="outside right center", fontsize="small")
    return Section(
        "Figure 8: ablation",
        "Blue: the faithful form, measured; grey: the paper.\n",
        (),
        {"figure8_ablation.png": figure},
    )
