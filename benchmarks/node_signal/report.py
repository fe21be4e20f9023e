"""The table and the figure of ``python -m benchmarks.node_signal``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from benchmarks.markdown import table
from benchmarks.node_signal.measure import SELECTIONS
from benchmarks.node_signal.models import TRAINING_BATCH
from qiaso_jax import plot

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


def page(settings: Mapping[str, Any], found: dict[str, Any]) -> str:
    """The cosines as Markdown."""
    details = sorted({_detail(report["pairs"]) for report in found.values()})
    notes = NOTES.format(
        keys=settings["keys"],
        sigma=settings["sigma"],
        detail=" or ".join(map(str, details)),
        steps=settings["train_steps"],
        rate=settings["learning_rate"],
        batch=TRAINING_BATCH,
    )
    parts = ["# Cosine of the node-space pseudo-gradient to the gradient", "", notes]
    for name, report in found.items():
        for stage, content in report["stages"].items():
            parts += [
                f"## {name}, {stage}, minibatch of {report['batch_size']}, "
                f"loss {content['loss']:.3g}",
                "",
                by_pairs(report["pairs"], content["selections"]),
                by_kernel(report["pairs"], content["selections"]),
            ]
    return "\n".join([*parts, "Written by `python -m benchmarks.node_signal`.", ""])


def by_pairs(pairs: Sequence[int], selections: dict[str, Any]) -> str:
    """The mean over the kernels at every number of pairs."""
    rows = []
    for name, kernels in selections.items():
        mean = kernels["mean over kernels"]
        cells = [_cell(mean, i) for i in range(len(pairs))]
        rows.append([name, *cells, f"{mean['limit']:.2f}"])
    return table(["pairs", *map(str, pairs), "∞"], rows, numbers=True)


def by_kernel(pairs: Sequence[int], selections: dict[str, Any]) -> str:
    """Every kernel at the pairs that are nearest to ``DETAIL``."""
    detail = _detail(pairs)
    rows = []
    paths = list(next(iter(selections.values())))[1:]
    for name, kernels in selections.items():
        rows.append(
            [name, *(_cell(kernels[path], pairs.index(detail)) for path in paths)]
        )
    return table([f"{detail} pairs", *paths], rows, numbers=True)


def _detail(pairs: Sequence[int]) -> int:
    return min(pairs, key=lambda each: abs(math.log(each / DETAIL)))


def _cell(row: dict[str, Any], index: int) -> str:
    return f"{row['cosine'][index]:.2f} ± {row['standard_error'][index]:.2f}"


PANELS = (
    ("initial", "pairs"),
    ("trained", "pairs"),
    ("trained", "forward passes"),
)
COLOURS = {
    "all": plot.COLOURS[0],
    "uniform": plot.GREY,
    "telling": plot.COLOURS[1],
}


@plot.style()
def figure(settings: Mapping[str, Any], found: dict[str, Any]) -> Figure:
    """Cosine against pairs at both stages, and against the cost once trained."""
    drawing = Figure(figsize=(plot.WIDTH, 8.5), layout="constrained")
    grid: Any = drawing.subplots(3, len(found), squeeze=False, sharey=True)
    for column, (name, report) in enumerate(found.items()):
        for axes, (stage, label) in zip(grid[:, column], PANELS, strict=True):
            selections = report["stages"][stage]["selections"]
            draw(axes, report["pairs"], selections, by_cost=label.startswith("forward"))
            axes.set(title=f"{name}, {stage}", xlabel=label)
    for axes in grid[:, 0]:
        axes.set_ylabel("cosine")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside upper center", ncols=2)
    plot.caption(
        drawing,
        "Cosine of the node-space pseudo-gradient to the gradient, mean over kernels, "
        f"{settings['dataset']}, mean and standard error over {settings['keys']} keys; "
        "against pairs for each example with candidates, and against forward passes "
        "for each example of the minibatch. Dashed: noise at all nodes; solid: at "
        "those that react.",
    )
    return drawing


def draw(
    axes: Any, pairs: Sequence[int], selections: dict[str, Any], by_cost: bool
) -> None:
    """One panel: a line for each selection."""
    for selection in SELECTIONS:
        mean = selections[selection.name]["mean over kernels"]
        axes.errorbar(
            [selection.forwards(each) for each in pairs] if by_cost else pairs,
            mean["cosine"],
            mean["standard_error"],
            label=selection.name,
            color=COLOURS[selection.examples],
            linestyle="-" if selection.reactive_only else "--",
            marker=".",
            capsize=2,
        )
    axes.set(xscale="log", ylim=(0, 1))
    if not by_cost:
        axes.set_xticks(pairs, list(map(str, pairs)))
        axes.minorticks_off()
