"""Figure 6: the landscape, and searches on their way over it."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.paper.columns import Row, tabulated
from benchmarks.paper.figures.rastrigin_traces import (
    GLOBAL,
    LEGEND,
    PAPER_K,
    paper_settings,
    plane_starts,
    trace,
    working_settings,
)
from benchmarks.paper.section import (
    FORMS_IN_WORDS,
    Section,
    Verdict,
    judged_either,
    share,
)
from benchmarks.paper.study import Study
from benchmarks.rastrigin.methods import HALF_WIDTH, WORKING_SIGMA, rastrigin
from qiaso_jax import plot

CORNERS = np.array([(-4.2, -3.8), (4.4, -2.6), (3.1, 4.3), (-3.6, 3.3)])
SHORT = 120
"""Iterations of the drawn searches; σ of the working form is annealed over them."""
EVERY = 4, 3
"""Of the drawn searches, which iterations and which candidates are kept."""
MOST = 0.9
"""The share of searches that has to arrive."""
NOTABLE = 0.05
"""The share that tunnelling has to add."""


PRINTED, WITHOUT = "faithful", "faithful, no tunnelling"
TUNNELLING = PRINTED, "faithful, ε = 0.5"
"""They differ from ``WITHOUT`` in tunnelling alone."""
SHORT_WORKING = "working, fewer"


def searches(num_steps: int) -> dict[str, tuple[dict[str, Any], int]]:
    """Settings and number of iterations of the searches that are counted."""
    return {
        PRINTED: (paper_settings(), num_steps),
        WITHOUT: ({**paper_settings(), "tunnelling": None}, num_steps),
        TUNNELLING[1]: (paper_settings(epsilon=0.5), num_steps),
        "faithful, σ = 0.5": (paper_settings(sigma=0.5), num_steps),
        "working": (working_settings(WORKING_SIGMA, num_steps), num_steps),
        SHORT_WORKING: (working_settings(WORKING_SIGMA, SHORT), SHORT),
    }


def measure(study: Study) -> dict[str, Any]:
    """Four searches of each form to draw, and how many of many reach the goal."""
    smoke = study.profile == "smoke"
    num_steps, starts = (SHORT, 4) if smoke else (10_000, 100)
    counted = searches(num_steps)
    if smoke:
        counted = {name: counted[name] for name in (PRINTED, SHORT_WORKING)}
    return {
        "starts": starts,
        "reached": {
            name: reached(settings, steps, starts)
            for name, (settings, steps) in counted.items()
        },
        "paths": {name: paths(counted[name][0]) for name in (PRINTED, SHORT_WORKING)},
    }


def reached(settings: dict[str, Any], num_steps: int, starts: int) -> dict[str, Any]:
    """The share of searches whose last superposition is in the global basin."""
    best = trace(
        settings, plane_starts(starts), num_steps, lambda x, c, info: info.best_loss
    )
    return {
        "evaluations": num_steps * PAPER_K,
        "share": np.mean(best[:, -1] < GLOBAL),
        "ever": np.mean(best.min(axis=1) < GLOBAL),
        "median": np.median(best[:, -1]),
    }


def paths(settings: dict[str, Any]) -> dict[str, Any]:
    """Centres ``[4, iterations, 2]``, and for each search a few candidates."""
    centres, candidates = trace(settings, CORNERS, SHORT, lambda x, c, info: (x, c))
    few = candidates[:, :: EVERY[0], :: EVERY[1]].reshape(len(CORNERS), -1, 2)
    inside = np.all(np.abs(few) <= HALF_WIDTH, axis=-1)
    return {
        "centres": centres,
        "candidates": [
            cloud[kept].tolist() for cloud, kept in zip(few, inside, strict=True)
        ],
    }


def section(content: dict[str, Any]) -> Section:
    """The landscape and the paths, and how many searches arrive."""
    arrivals = tabulated(
        [{"form": name, **one} for name, one in content["reached"].items()],
        ("form", "{form}"),
        ("evaluations", "{evaluations:,}"),
        ("arrived", lambda row: share(row["share"])),
        ("there at some time", lambda row: share(row["ever"])),
        ("median loss", "{median:.3g}"),
    )
    return Section(
        "Figure 6: trajectories on Rastrigin's landscape",
        f"Searches of the 2-D Rastrigin function from {content['starts']} points of "
        "the square, K = 30. A search has arrived if the best candidate of its last "
        f"iteration is in the global basin (loss below {GLOBAL}).\n\n{arrivals}\n"
        f"The figure has {SHORT} iterations from four points: dots are candidates, "
        f"lines centres.\n\n{LEGEND}",
        verdicts(content["reached"]),
        {"figure6.svg": figure(content)},
    )


def verdicts(reached: dict[str, Row]) -> list[Verdict]:
    """Whether searches arrive, and whether through tunnelling."""
    arrived = {name: one["share"] for name, one in reached.items()}
    told = {name: f"{share(x)} ({name})" for name, x in arrived.items()}
    result = [
        Verdict(
            "Figure 6B: the trajectories converge to the global minimum",
            "searches that arrive: " + ", ".join(told.values()),
            judged_either(arrived[PRINTED] >= MOST, max(arrived.values()) >= MOST),
        )
    ]
    if WITHOUT in arrived:
        gain = [arrived[name] - arrived[WITHOUT] for name in TUNNELLING]
        result.append(
            Verdict(
                "Figure 6B: they do so through tunnelling-based exploration",
                "searches that arrive: "
                + ", ".join(told[name] for name in (WITHOUT, *TUNNELLING)),
                judged_either(gain[0] >= NOTABLE, max(gain) >= NOTABLE),
            )
        )
    return result


@plot.style()
def figure(content: dict[str, Any]) -> Figure:
    """A, the landscape; B and C, candidates and centres on their way over it."""
    figure = Figure(figsize=(plot.WIDTH, 7.6), layout="constrained")
    line = np.linspace(-HALF_WIDTH, HALF_WIDTH, 181)
    x, y = np.meshgrid(line, line)
    height = rastrigin(np.stack([x, y], axis=-1), np)
    panels: dict[str, Any] = figure.subplot_mosaic(
        "AA;BC", per_subplot_kw={"A": {"projection": "3d"}}
    )
    surface = panels["A"]
    surface.plot_surface(
        x, y, height, cmap="viridis", rcount=90, ccount=90, rasterized=True
    )
    surface.set_box_aspect(None, zoom=1.15)
    surface.set(title="A. The 2-D Rastrigin function", zlabel="loss")
    for axis in (surface.xaxis, surface.yaxis, surface.zaxis):
        axis.pane.set_alpha(0)
    drawn = reversed(content["paths"].items())
    for letter, (name, kept) in zip("BC", drawn, strict=True):
        axes = panels[letter]
        axes.pcolormesh(x, y, height, cmap="Greys", alpha=0.35, rasterized=True)
        _draw_paths(axes, kept)
        axes.set(title=f"{letter}. {name.split(',')[0].capitalize()}", aspect="equal")
        axes.set_xticks(range(-4, 5, 2))
        axes.grid(False)
    for axes in panels.values():
        axes.set(xlabel="$x_1$", ylabel="$x_2$")
    handles, labels = panels["B"].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4)
    plot.caption(
        figure,
        f"{SHORT} iterations of four searches from above, K = 30; darker is higher. "
        f"{FORMS_IN_WORDS}",
    )
    return figure


def _draw_paths(axes: Any, kept: dict[str, Any]) -> None:
    paths = zip(kept["centres"], kept["candidates"], strict=True)
    for index, (centres, candidates) in enumerate(paths):
        path, few = np.array(centres), np.array(candidates).reshape(-1, 2)
        colour = plot.COLOURS[index]
        named = ("candidates", "centre", "start") if index == 0 else (None,) * 3
        axes.plot(*few.T, ".", color=colour, markersize=3, alpha=0.6, label=named[0])
        axes.plot(*path.T, color=colour, label=named[1])
        axes.plot(*path[0], "^", color=colour, markersize=9, label=named[2])
    axes.plot(
        *(0, 0), "*", color="black", markeredgecolor="white", markersize=13,
        label="global minimum",
    )  # fmt: skip
