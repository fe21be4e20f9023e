"""The share of targets that are reached, against evaluations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.coco.problems import TARGETS
from qiaso_jax import plot

BEST = Path(__file__).parents[1] / "results" / "coco" / "best2009.json"


def stored() -> Mapping[str, Sequence[Sequence[float | None]]]:
    """What ``benchmarks.coco.reference`` has written."""
    return json.loads(BEST.read_text())["evaluations"]


@plot.style()
def figure(
    content: Mapping[str, Any], best: Mapping[str, Sequence[Sequence[float | None]]]
) -> Figure:
    """A panel for each dimension with a line for each method.

    Args:
      content: of results.json.
      best: for each dimension, of each function of ``bbob``, the evaluations that the
        best method of 2009 needed to each of the targets.
    """
    settings, runs = content["settings"], content["runs"]
    dimensions, suite = settings["dimensions"], settings["suite"]
    columns = min(2, len(dimensions))
    lines = -(-len(dimensions) // columns)
    drawn = Figure(
        figsize=(plot.WIDTH, 1.1 + 0.5 * plot.WIDTH * lines), layout="constrained"
    )
    panels: Any = drawn.subplots(
        lines, columns, squeeze=False, sharex=True, sharey=True
    )
    for ax in panels.flat[len(dimensions) :]:
        ax.remove()
    for ax, dimension in zip(panels.flat, dimensions, strict=False):
        here = [run for run in runs if run["dimension"] == dimension]
        reports = np.array(here[0]["reports"])
        for i, method in enumerate(settings["methods"]):
            own = (run["differences"] for run in here if run["method"] == method)
            reached = np.concatenate([*own])[..., None] <= TARGETS
            of_line = "-:"[i // len(plot.COLOURS)]  # when there is no other colour
            shares = reached.mean(axis=(0, 2))
            ax.plot(reports / dimension, shares, of_line, label=method)
        if suite == "bbob" and str(dimension) in best:
            functions = sorted({run["function"] for run in here})
            needed = [best[str(dimension)][function - 1] for function in functions]
            reached = np.array(needed, float)[..., None] <= reports
            dashed = {"linestyle": "--", "color": plot.GREY, "label": "best of 2009"}
            ax.plot(reports / dimension, reached.mean(axis=(0, 1)), **dashed)
        ax.set(title=f"{dimension}-D", xscale="log", ylim=(0, 1))
    for ax in panels[:, 0]:
        ax.set_ylabel("share of targets")
    for ax in panels[-1]:
        ax.set_xlabel("evaluations / D")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside upper center", ncols=2)
    first, last = settings["instances"]
    number = len({run["function"] for run in runs})
    said = f"COCO {suite}: {number} functions, {last - first + 1} instances of each."
    if "best of 2009" in labels:
        said += (
            " Best of 2009: targets for which the fastest method of that workshop is"
            " expected to need no more."
        )
    plot.caption(drawn, said)
    return drawn
