"""Figure 7: accuracies on MNIST with 95 % intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.paper import statistics
from benchmarks.paper.figures.accuracy_axis import accuracy_axis, dots
from benchmarks.paper.forms import FORMS, QIASO, recipes
from benchmarks.paper.section import FORMS_IN_WORDS, Section
from benchmarks.paper.study import Study
from benchmarks.paper.tables import table4
from benchmarks.paper.tables.accuracies import accuracies
from qiaso_jax import plot


def measure(study: Study) -> dict[str, Any]:
    """The accuracies of Table 4 on MNIST."""
    forms = (*table4.BASELINES, *QIASO, *recipes(study.mnist))
    return {"rows": accuracies(study, forms, (study.mnist,))}


def section(content: dict[str, Any]) -> Section:
    """Points beside the paper's, on an axis that shows small errors and large."""
    rows = [row for row in content["rows"] if "accuracy" in row]
    body = "Mean over seeds, with 95 % intervals where there are seeds enough. " + (
        "The paper's, of ten seeds, in grey.\n"
    )
    return Section(
        "Figure 7: accuracies with intervals",
        body,
        (),
        {"figure7_bars.svg": figure(rows)},
    )


@plot.style()
def figure(rows: list[dict[str, Any]]) -> Figure:
    """A line for each optimizer."""
    size = plot.WIDTH, 2 + 0.5 * len(rows)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    values = [np.array(row["accuracy"]) for row in rows]
    means = [each.mean() for each in values]
    halves = np.nan_to_num([statistics.half_width(each) for each in values])
    papers = [table4.PAPER["mnist"][FORMS[row["form"]].paper] for row in rows]
    theirs, their_halves = ([paper[i] for paper in papers] for i in range(2))
    places = np.arange(len(rows))
    dots(axes, places + 0.15, theirs, their_halves, plot.GREY, "the paper")
    dots(axes, places - 0.15, means, halves, plot.COLOURS[0], "measured")
    axes.set_yticks(
        places, [f"{FORMS[row['form']].label}\n{row['protocol']}" for row in rows]
    )
    accuracy_axis(axes, "x")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(False, axis="y")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    plot.caption(
        figure,
        "MNIST; mean and 95 % interval. The axis is logarithmic in the error. "
        f"{FORMS_IN_WORDS}",
    )
    return figure
