"""The panels of Figure 2."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.paper.columns import Row
from benchmarks.rastrigin.methods import DIMENSION


def figure(content: dict[str, Any]) -> Figure:
    """A, expected and best loss; B, the rate at which tunnelling fades."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    rows = content["tunnelling"]
    widths = (1.25, *[1] * len(rows))
    panels: Any = figure.subplots(1, len(widths), width_ratios=widths)
    _draw_losses(panels[0], content["forms"])
    for axes, (epsilon, decays) in zip(panels[1:], rows.items(), strict=True):
        _draw_decays(axes, epsilon, decays)
    for axes in panels:
        axes.grid(alpha=0.3)
    for axes in panels[2:]:
        axes.sharey(panels[1])
    figure.suptitle(
        f"{DIMENSION}-D Rastrigin, {content['evaluations']:,} evaluations, "
        f"{content['seeds']} seeds"
    )
    return figure


def _draw_losses(axes: Axes, forms: dict[str, Row]) -> None:
    colours = ("tab:red", "tab:orange", "tab:blue")
    for colour, (name, form) in zip(colours, forms.items(), strict=True):
        for key, style in (("expected", "-"), ("best", ":")):
            label = f"{name}, K = {form['population']}: {key}"
            _band(axes, form["thousands"], form[key], label, colour, style)
    axes.set(
        title="A. Loss of the superposition",
        xlabel="thousands of evaluations (iterations × K)",
        ylabel="loss of an iteration",
        yscale="log",
    )
    axes.legend(fontsize=8)


def _draw_decays(axes: Axes, epsilon: str, decays: list[dict[str, Any]]) -> None:
    for index, one in enumerate(decays):
        label = f"{one['decay']:g}"
        _band(axes, one["iterations"], one["best"], label, f"C{index}", "-")
    axes.set(
        title=f"B. Faithful, ε = {epsilon}",
        xlabel="iterations",
        ylabel="best loss so far",
        xscale="log",
    )
    axes.legend(title="decay rate", fontsize=8, title_fontsize=8)


def _band(
    axes: Axes, x: Any, quartiles: Any, label: str, colour: str, style: str
) -> None:
    """The median over seeds, and its quartiles as a band."""
    low, middle, high = quartiles
    axes.plot(x, middle, style, color=colour, label=label, linewidth=1.2)
    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
