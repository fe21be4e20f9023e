"""The share of targets that are reached, against evaluations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.coco.problems import share
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
    rows = -(-len(dimensions) // columns)
    drawn = Figure(
        figsize=(plot.WIDTH, 1.1 + 0.5 * plot.WIDTH * rows), layout="constrained"
    )
    panels: Any = drawn.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for ax in panels.flat[len(dimensions) :]:
        ax.remove()
    for ax, dimension in zip(panels.flat, dimensions, strict=False):
        here = [run for run in runs if run["dimension"] == dimension]
        for method in settings["methods"]:
            own = [run for run in here if run["method"] == method]
            shares = [[share(x) for x in row] for run in own for row in run["differences"]]
            times = np.array(own[0]["reports"]) / dimension
            ax.plot(times, np.mean(shares, axis=0), label=method)
        if suite == "bbob" and str(dimension) in best:
            functions = sorted({run["function"] for run in here})
            needed = [best[str(dimension)][function - 1] for function in functions]
            shares = np.mean(
                np.array(needed, float)[..., None] <= times * dimension, axis=(0, 1)
            )
            ax.plot(times, shares, "--", color=plot.GREY, label="best of 2009")
        ax.set(title=f"{dimension}-D", xscale="log", ylim=(0, 1))
    for ax in panels[:, 0]:
        ax.set_ylabel("share of targets")
    drawn.supxlabel("evaluations / D")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside upper center", ncols=2)
    return drawn
