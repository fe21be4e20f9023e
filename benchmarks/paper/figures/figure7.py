"""Figure 7: accuracies on MNIST with 95 % intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.paper import statistics
from benchmarks.paper.forms import FORMS, QIASO, recipes
from benchmarks.paper.section import Section
from benchmarks.paper.study import Study
from benchmarks.paper.tables import table4
from benchmarks.paper.tables.accuracies import accuracies


def measure(study: Study) -> dict[str, Any]:
    """The accuracies of Table 4 on MNIST."""
    forms = (*table4.BASELINES, *QIASO, *recipes(study.mnist))
    return {"rows": accuracies(study, forms, (study.mnist,))}


def section(content: dict[str, Any]) -> Section:
    """Bars beside the paper's; those below the axis are marked by their number."""
    rows = [row for row in content["rows"] if "accuracy" in row]
    body = "Mean over seeds, with 95 % intervals where there are seeds enough. " + (
        "The paper's bars, of ten seeds, in grey.\n"
    )
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for i, row in enumerate(rows):
        values = np.array(row["accuracy"])
        half = statistics.half_width(values)
        error = half if np.isfinite(half) else 0.0
        theirs, their_half, _ = table4.PAPER["mnist"][FORMS[row["form"]].paper]
        axes.bar(i - 0.2, values.mean(), 0.4, yerr=error, color="tab:blue", capsize=3)
        axes.bar(i + 0.2, theirs, 0.4, yerr=their_half, color="lightgrey", capsize=3)
        if values.mean() < 95:
            axes.text(i - 0.2, 95.05, f"{values.mean():.1f}", rotation=90, ha="center")
    labels = [FORMS[row["form"]].label for row in rows]
    axes.set_xticks(range(len(rows)), labels, rotation=30, ha="right")
    axes.set(ylim=(95, 99.5), ylabel="test accuracy, %")
    return Section(
        "Figure 7: accuracies with intervals", body, (), {"figure7_bars.png": figure}
    )
