"""Figure 5: where the candidates are, under several exploration settings."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from benchmarks.paper.columns import Row, tabulated
from benchmarks.paper.figures.rastrigin_traces import (
    LEGEND,
    paper_settings,
    trace,
    working_settings,
)
from benchmarks.paper.section import (
    FORMS_IN_WORDS,
    Section,
    Verdict,
    judged_either,
    reproduced,
    share,
)
from benchmarks.paper.study import Study
from benchmarks.rastrigin.methods import HALF_WIDTH, WORKING_SIGMA
from qiaso_jax import plot

START = (-3.2, 4.1)
BINS = 64
MINIMA = np.arange(-5, 6)
"""Rastrigin's minima along one axis, but for a few hundredths."""
EXPLORED = 0.5
"""Of all minima: what it takes to have explored the surface."""


def settings(num_steps: int) -> dict[str, dict[str, Any]]:
    """The panels: the first three faithful, the others in the manner of minimize."""
    return {
        "faithful: σ = 0.02, ε = 0.02": paper_settings(),
        "faithful: σ = 0.02, ε = 0.5": paper_settings(epsilon=0.5),
        "faithful: σ = 0.5, ε = 0.02": paper_settings(sigma=0.5),
    } | {
        f"working: σ from {sigma:.2g}": working_settings(sigma, num_steps)
        for sigma in (0.5, HALF_WIDTH / 3, WORKING_SIGMA)
    }


def measure(study: Study) -> dict[str, Any]:
    """How many candidates each cell of the square and each basin got."""
    smoke = study.profile == "smoke"
    num_steps, seeds = (20, 5) if smoke else (200, 10)
    chosen = settings(num_steps)
    if smoke:
        chosen = {name: chosen[name] for name in list(chosen)[::5]}
    starts = np.tile(START, (seeds, 1))
    panels = {}
    for name, each in chosen.items():
        where = trace(each, starts, num_steps, lambda x, candidates, info: candidates)
        panels[name] = counted(where.reshape(-1, 2))
    return {"steps": num_steps, "seeds": seeds, "bins": BINS, "panels": panels}


def counted(where: np.ndarray) -> dict[str, Any]:
    """Candidates by cell, a string for each row, and what they amount to."""
    edges = np.linspace(-HALF_WIDTH, HALF_WIDTH, BINS + 1)
    counts = np.histogram2d(*where.T, bins=edges)[0].astype(int)
    nearest = np.round(where).astype(int)
    inside = np.all(np.abs(nearest) <= MINIMA.max(), axis=1)
    visited = len(np.unique(nearest[inside], axis=0))
    return {
        "candidates": len(where),
        "counts": [" ".join(map(str, row)) for row in counts],
        "cells": np.mean(counts > 0),
        "minima": visited / len(MINIMA) ** 2,
        "global": np.mean(np.all(nearest == 0, axis=1)),
    }


def section(content: dict[str, Any]) -> Section:
    """The six densities, and how far they reach."""
    panels = content["panels"]
    reach = tabulated(
        [{"setting": name, **panel} for name, panel in panels.items()],
        ("setting", "{setting}"),
        ("cells visited", lambda row: share(row["cells"])),
        ("basins visited", lambda row: share(row["minima"])),
        ("candidates in the global basin", lambda row: share(row["global"])),
    )
    return Section(
        "Figure 5: density of exploration",
        f"{content['steps']} iterations with K = 30 from {START} on the 2-D Rastrigin "
        f"function, {content['seeds']} seeds. The square is cut into "
        f"{content['bins']}² cells and the basins of {len(MINIMA) ** 2} minima.\n\n"
        f"{reach}\n{LEGEND}",
        [explored(panels), varied(panels)],
        {"figure5.svg": figure(content)},
    )


def explored(panels: dict[str, Row]) -> Verdict:
    """Whether candidates reach most basins, at the printed or at other settings."""
    reached = {name: panel["minima"] for name, panel in panels.items()}
    printed, *others = reached
    widest = max(others, key=reached.__getitem__)
    return Verdict(
        "Figure 5: QIASO's candidates explore the Rastrigin surface",
        f"{share(reached[printed])} of the basins at the printed settings "
        f"({printed}), {share(reached[widest])} with {widest}",
        judged_either(reached[printed] >= EXPLORED, reached[widest] >= EXPLORED),
    )


def varied(panels: dict[str, Row]) -> Verdict:
    """Whether all other faithful settings reach more cells than the printed."""
    faithful = {k: v["cells"] for k, v in panels.items() if k.startswith("faithful")}
    printed, *others = faithful.values()
    return Verdict(
        "Figure 5: the exploration parameters govern the density",
        "cells visited: " + ", ".join(f"{share(x)} ({k})" for k, x in faithful.items()),
        reproduced(min(others) > printed) if others else "not measured",
    )


@plot.style()
def figure(content: dict[str, Any]) -> Figure:
    """A density for each setting, with the minima, the start and the goal."""
    panels, bins = content["panels"], content["bins"]
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(plot.WIDTH, 1.8 + 2.3 * rows), layout="constrained")
    grid: Any = figure.subplots(rows, 2, sharex=True, sharey=True, squeeze=False)
    minima = np.stack(np.meshgrid(MINIMA, MINIMA), axis=-1).reshape(-1, 2)
    edges = np.linspace(-HALF_WIDTH, HALF_WIDTH, bins + 1)
    drawn: Any = None
    for axes, (title, panel) in zip(grid.T.flat, panels.items(), strict=False):
        counts = np.array([row.split() for row in panel["counts"]], float)
        shares = np.ma.masked_equal(counts.T / panel["candidates"], 0)
        drawn = axes.pcolormesh(
            edges, edges, shares, norm=LogNorm(1e-5, 1), rasterized=True
        )
        axes.plot(*minima.T, ".", color=plot.GREY, markersize=3, label="minima")
        axes.plot(
            0, 0, "+", color=plot.COLOURS[1], markersize=11, label="global minimum"
        )
        axes.plot(*START, "x", color=plot.COLOURS[3], markersize=9, label="start")
        axes.set(title=title, aspect="equal")
        axes.grid(False)
    for axes in grid[-1]:
        axes.set_xlabel("$x_1$")
    for axes in grid[:, 0]:
        axes.set_ylabel("$x_2$")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3)
    figure.colorbar(drawn, ax=grid, label="share of candidates", shrink=0.6)
    plot.caption(
        figure,
        f"2-D Rastrigin function: candidates of {content['steps']} iterations, K = 30, "
        f"{content['seeds']} seeds. {FORMS_IN_WORDS}",
    )
    return figure
