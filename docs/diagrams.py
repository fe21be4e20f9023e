"""The diagrams of the pages on concepts.

    python docs/diagrams.py

Needs matplotlib, of the extra "examples". Where a diagram shows numbers, they are
computed by the formulas that its page states.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from qiaso_jax import plot, theory

FIGURES = Path(__file__).parent / "figures"
BLUE, ORANGE = plot.COLOURS[:2]
GREY = plot.GREY


def superposition() -> Figure:
    """Candidates on a loss, their probabilities, and their expectation."""

    def loss(x):
        return 0.4 * (x - 1.2) ** 2 + 0.25 * np.sin(3 * x)

    figure, axes = plt.subplots(1, 3, figsize=(9, 2.8), sharey=True)
    x, centre = np.linspace(-1.6, 2.4, 200), -0.1
    offsets = np.array([0.4, 0.8, 1.2])
    offsets = np.concatenate([offsets, -offsets])
    losses = loss(centre + offsets)
    scaled = (losses - losses.mean()) / losses.std()
    weights = np.exp(-scaled) / np.exp(-scaled).sum()
    moved = centre + weights @ offsets

    uniform = np.full(6, 1 / 6)
    shown = [(uniform, 1), (weights, 1), (weights, 0.35)]
    for axis, (sizes, alpha) in zip(axes, shown, strict=True):
        axis.plot(x, loss(x), color=GREY)
        axis.scatter(centre + offsets, losses, 600 * sizes, BLUE, alpha=alpha, zorder=3)
        axis.plot(centre, loss(centre), "o", color=ORANGE, ms=5, zorder=4)
        axis.annotate("μ", (centre - 0.05, loss(centre) + 0.4), color=ORANGE)
        axis.set(xticks=[], yticks=[], xlabel="parameters")
    for offset, height, weight in zip(offsets, losses, weights, strict=True):
        place = (centre + offset, height - 0.62)
        axes[1].annotate(f"{weight:.2f}", place, ha="center", fontsize=8)
    arrow(axes[2], (centre, loss(centre)), (moved, loss(moved)), ORANGE)
    axes[2].plot(moved, loss(moved), "o", color=ORANGE, ms=9, zorder=4)
    axes[2].annotate("μ + Σ pδ", (moved, loss(moved) + 0.4), color=ORANGE)
    axes[0].set(ylabel="loss", title="superposition: all alike", ylim=(-1, 3.6))
    axes[1].set(title="amplitudes: p by the losses")
    axes[2].set(title="collapse: to the expectation")
    return figure


def tunnelling() -> Figure:
    """A jump across a barrier, and how probable one is."""

    def loss(x):
        return 0.5 * (x**2 - 1) ** 2 - 0.35 * x

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.8))
    x = np.linspace(-1.7, 1.75, 200)
    left.plot(x, loss(x), color=GREY)
    candidates = np.array([-1.2, -1.0, -0.9, -0.72])
    left.scatter(candidates, loss(candidates), 70, BLUE, zorder=3)
    start, end = -0.72, 0.85
    left.plot(end, loss(end), "o", mfc="none", mec=ORANGE, ms=9)
    arrow(left, (start, loss(start)), (end, loss(end)), ORANGE, bend=-0.9)
    left.annotate("ε ζ, with probability p", (-0.72, 1.1), color=ORANGE)
    left.set(xticks=[], yticks=[], xlabel="parameters", ylabel="loss", ylim=(-0.6, 1.5))
    left.set(title="one candidate tunnels")

    reach = np.linspace(0.05, 5, 100)
    exact = theory.escape_probability(reach, 1.0, 1.0)
    printed = theory.escape_probability_as_printed(reach, 1.0, 1.0)
    right.semilogy(reach, exact, color=BLUE, label="exact")
    right.semilogy(reach, printed, "--", color=ORANGE, label="“lower bound” of Eq 69")
    right.set(xlabel="barrier Δ, in units of εσ", ylim=(1e-7, 3))
    right.set(title="probability that a jump crosses it")
    right.legend(loc="lower left", frameon=False)
    return figure


def node_space() -> Figure:
    """Which noise each example sees of each candidate."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.1))
    examples, candidates = 5, 8
    draws = np.random.default_rng(3).choice([-1, 1], (examples, candidates))
    shared = np.tile(draws[:1], (examples, 1))
    for axis, signs in zip(axes, (shared, draws), strict=True):
        for (n, k), sign in np.ndenumerate(signs):
            colour = BLUE if sign > 0 else ORANGE
            axis.add_patch(Rectangle((k, n), 0.86, 0.86, color=colour, alpha=0.85))
        axis.set(xlim=(-0.2, candidates), ylim=(examples, -0.2), aspect="equal")
        axis.set(xticks=[], yticks=[], xlabel="candidates, K", ylabel="examples, B")
        axis.spines[:].set_visible(False)
    axes[0].set(title="weight space: one noise for all examples,\nK losses")
    axes[1].set(
        title="node space: each example has its own,\nB · K losses from the same passes"
    )
    return figure


def low_rank() -> Figure:
    """A candidate as a sum, and what of its product is shared."""
    figure, axis = plt.subplots(figsize=(9, 2.6))

    def matrix(x, width, height, text, colour, copies=1):
        for copy in reversed(range(copies)):
            place = (x + 0.12 * copy, 0.12 * copy - height / 2)
            face = Rectangle(place, width, height, fc=colour, ec=GREY, lw=0.8)
            face.set_alpha(1 if copy == 0 else 0.45)
            axis.add_patch(face)
        label = (x + width / 2, -height / 2 - 0.18)
        axis.annotate(text, label, ha="center", va="top")

    def sign(x, text):
        axis.annotate(text, (x, 0), ha="center", va="center", fontsize=13)

    matrix(0, 1.4, 2, "$W_k$", GREY, copies=3)
    sign(2.05, "=")
    matrix(2.5, 1.4, 2, "$W$, m × n\nonce", GREY)
    sign(4.35, "+ σ")
    matrix(4.8, 0.22, 2, "$A_k$\nm signs", BLUE, copies=3)
    matrix(5.75, 1.4, 0.22, "$B_k^⊤$\nn signs", ORANGE, copies=3)
    sign(8.0, "so")
    matrix(8.6, 1.4, 0.5, "$x W$\nonce for all k", GREY)
    sign(10.45, "+ σ")
    matrix(10.9, 0.22, 0.5, "$x A_k$", BLUE, copies=3)
    matrix(12.0, 1.4, 0.22, "$B_k^⊤$", ORANGE, copies=3)
    axis.set(xlim=(-0.2, 14), ylim=(-2, 1.5), aspect="equal")
    axis.set_axis_off()
    return figure


def arrow(axis: Any, start: Any, end: Any, colour: str, bend: float = 0.0) -> None:
    """An arrow over everything else."""
    style = f"arc3,rad={bend}"
    axis.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=14,
            color=colour,
            connectionstyle=style,
            shrinkB=5,
            zorder=5,
        )
    )


DIAGRAMS: tuple[Callable[[], Figure], ...] = (
    superposition,
    tunnelling,
    node_space,
    low_rank,
)


def main() -> None:
    """Writes all diagrams to ``docs/figures``."""
    unlike_curves: Any = {"axes.grid": False, "figure.constrained_layout.use": True}
    with plot.style(), plt.rc_context(unlike_curves):
        for draw in DIAGRAMS:
            figure = draw()
            plot.save(figure, FIGURES / f"{draw.__name__}.svg")
            plt.close(figure)


if __name__ == "__main__":
    main()
