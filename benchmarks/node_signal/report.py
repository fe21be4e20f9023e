"""The table and the figure of ``python -m benchmarks.node_signal``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from matplotlib.figure import Figure

from benchmarks.node_signal.measure import SELECTIONS, Selection
from benchmarks.node_signal.models import TRAINING_BATCH

DETAIL = 16
"""Pairs nearest to these are those of the tables per kernel."""

NOTES = """\
Mean ± standard error over {keys} keys, each with a minibatch, a draw of examples and
a noise of its own, of the cosine to the back-propagated gradient of the mean loss over
the whole minibatch; sigma = {sigma:g}, eta = 0. The first table of each network has the
mean over its kernels, the second the kernels at {detail} pairs.

- *examples*: which get candidates. *all* of the minibatch; a quarter of it, *uniform*
  or *telling*, drawn as `node_qiaso(examples=0.25)` does. At equal pairs *uniform* and
  *telling* evaluate equally many candidates, and *all* as many with a quarter of the
  pairs.
- *nodes*: which get noise, *all* or only the *reactive* ones (`reactive_only`). The two
  rows have the same draws and signs.
- *∞*: the back-propagated gradient of the examples drawn, which is what more pairs lead
  to at small sigma. 1 for all examples.
- *trained*: after {steps} steps of Adam at rate {rate:g} on minibatches of {batch}.
"""


def table(settings: Mapping[str, Any], found: dict[str, Any]) -> str:
    """The cosines as Markdown."""
    detail = {name: _nearest(report["pairs"]) for name, report in found.items()}
    lines = ["# Cosine of the node-space pseudo-gradient to the gradient", ""]
    lines += [
        NOTES.format(
            keys=settings["keys"],
            sigma=settings["sigma"],
            detail=" or ".join(str(each) for each in sorted(set(detail.values()))),
            steps=settings["train_steps"],
            rate=settings["learning_rate"],
            batch=TRAINING_BATCH,
        )
    ]
    for name, report in found.items():
        for stage, content in report["stages"].items():
            rows = content["selections"]
            lines += [
                f"## {name}, {stage}, minibatch of {report['batch_size']}, "
                f"loss {content['loss']:.3g}",
                "",
                _row(["pairs", *map(str, report["pairs"]), "∞"]),
                _row(["---", *["---:"] * (len(report["pairs"]) + 1)]),
            ]
            for selection in SELECTIONS:
                mean = rows[selection.name]["mean over kernels"]
                cells = [_cell(mean, i) for i in range(len(report["pairs"]))]
                lines += [_row([selection.name, *cells, f"{mean['limit']:.2f}"])]
            at = report["pairs"].index(detail[name])
            kernels = list(rows[SELECTIONS[0].name])[1:]
            lines += ["", _row([f"{detail[name]} pairs", *kernels])]
            lines += [_row(["---", *["---:"] * len(kernels)])]
            for selection in SELECTIONS:
                cells = [_cell(rows[selection.name][path], at) for path in kernels]
                lines += [_row([selection.name, *cells])]
            lines += [""]
    return "\n".join([*lines, "Written by `python -m benchmarks.node_signal`.", ""])


def _nearest(pairs: tuple[int, ...]) -> int:
    return min(pairs, key=lambda each: abs(math.log(each / DETAIL)))


def _cell(row: dict[str, Any], index: int) -> str:
    return f"{row['cosine'][index]:.2f} ± {row['standard_error'][index]:.2f}"


def _row(texts: list[str]) -> str:
    return "| " + " | ".join(texts) + " |"


def figure(settings: Mapping[str, Any], found: dict[str, Any]) -> Figure:
    """Cosine against pairs at both stages, and against the cost once trained."""

    def by_pairs(selection: Selection, pairs: int) -> float:
        del selection
        return pairs

    panels: list[tuple[str, str, Callable[[Selection, int], float]]] = [
        ("initial", "pairs per example with candidates", by_pairs),
        ("trained", "pairs per example with candidates", by_pairs),
        ("trained", "forward passes per example of the minibatch", Selection.forwards),
    ]
    drawing = Figure(figsize=(1 + 3.6 * len(found), 10), layout="constrained")
    grid: Any = drawing.subplots(3, len(found), squeeze=False, sharey=True)
    colours = {"all": "tab:blue", "uniform": "tab:grey", "telling": "tab:orange"}
    for column, (name, report) in enumerate(found.items()):
        for row, (stage, label, cost) in enumerate(panels):
            axes = grid[row, column]
            for selection in SELECTIONS:
                rows = report["stages"][stage]["selections"][selection.name]
                mean = rows["mean over kernels"]
                axes.errorbar(
                    [cost(selection, each) for each in report["pairs"]],
                    mean["cosine"],
                    mean["standard_error"],
                    label=selection.name,
                    color=colours[selection.examples],
                    linestyle="-" if selection.reactive_only else "--",
                    marker=".",
                    capsize=2,
                )
            axes.set(title=f"{name}, {stage}", xlabel=label, xscale="log")
            if cost is by_pairs:
                axes.set_xticks(
                    report["pairs"], [f"{each}" for each in report["pairs"]]
                )
                axes.minorticks_off()
            axes.grid(alpha=0.3)
    for axes in grid[:, 0]:
        axes.set_ylabel("cosine, mean over kernels")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
    drawing.suptitle(
        f"Pseudo-gradient and gradient: {settings['dataset']}, {settings['keys']} keys"
    )
    return drawing
