"""The panels of Figure 2."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.paper.columns import Row
from benchmarks.paper.section import FORMS_IN_WORDS
from benchmarks.rastrigin.methods import DIMENSION
from qiaso_jax import plot


@plot.style()
def figure(content: dict[str, Any]) -> Figure:
    """A, expected and best loss; B, the rate at which tunnelling fades."""
    figure = Figure(figsize=(plot.WIDTH, 7.6), layout="constrained")
    rows = content["tunnelling"]
    panels = figure.subplot_mosaic([["losses"] * len(rows), [*rows]])
    _draw_losses(panels["losses"], content["forms"])
    for epsilon, decays in rows.items():
        _draw_decays(panels[epsilon], epsilon, decays)
    first, *others = (panels[epsilon] for epsilon in rows)
    first.set_ylabel("best loss so far")
    first.legend(title="decay rate")
    for axes in others:
        axes.sharey(first)
    plot.caption(
        figure,
        f"{DIMENSION}-D Rastrigin function, {content['evaluations']:,} evaluations. "
        f"Medians of {content['seeds']} seeds, bands between quartiles. "
        f"{FORMS_IN_WORDS} B is the faithful form.",
    )
    return figure


def _draw_losses(axes: Axes, forms: dict[str, Row]) -> None:
    for colour, (name, form) in zip((3, 1, 0), forms.items(), strict=True):
        for key, style in (("expected", "-"), ("best", ":")):
            low, middle, high = form[key]
            plot.curve(
                form["thousands"],
                middle,
                (low, high),
                ax=axes,
                linestyle=style,
                color=plot.COLOURS[colour],
                label=f"{name}, K = {form['population']}: {key}",
            )
    axes.set(
        title="A. Loss of the superposition",
        xlabel="thousands of evaluations (iterations × K)",
        ylabel="loss of an iteration",
        yscale="log",
    )
    axes.legend()


def _draw_decays(axes: Axes, epsilon: str, decays: list[dict[str, Any]]) -> None:
    for one in decays:
        low, middle, high = one["best"]
        label = f"{one['decay']:g}"
        plot.curve(one["iterations"], middle, (low, high), ax=axes, label=label)
    axes.set(title=f"B. ε = {epsilon}", xlabel="iterations", xscale="log")
