"""The paper's Figures 2, 5 and 6, computed with this package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

import qiaso_jax
from benchmarks.rastrigin_methods import HALF_WIDTH, PAPER, WORKING_SIGMA, rastrigin

PAPER_K = PAPER["num_candidates"]
DECAYS = (0.9, 0.99, 0.995, 0.999, 1.0)
EPSILONS = (0.02, 0.5)
PLANE_STEPS = 200
PLANE_START = (-3.2, 4.1)


def working_settings(sigma: float, num_steps: int) -> dict[str, Any]:
    """In the manner of ``minimize``, for K = 30 in the plane."""
    return {
        "num_candidates": 30,
        "sigma": optax.exponential_decay(sigma, num_steps, 1e-3),
        "eta": 5.0,
        "loss_scaling": "rank",
    }


def paper_settings(**changes: Any) -> dict[str, Any]:
    """The paper's, with changes; ``epsilon`` and ``decay`` are the tunnelling's."""
    changed = {
        name: changes.pop(name) for name in ("epsilon", "decay") & changes.keys()
    }
    return {**PAPER, "tunnelling": PAPER["tunnelling"]._replace(**changed), **changes}


def trace(
    settings: Mapping[str, Any],
    starts: Any,
    num_steps: int,
    keep: Callable[[jax.Array, jax.Array, qiaso_jax.QIASOInfo], Any],
) -> Any:
    """What ``keep(centre, candidates, info)`` returns, ``[seeds, num_steps, ...]``."""

    @jax.jit
    @jax.vmap
    def search(start, key):
        tx = qiaso_jax.qiaso(**settings, key=key)
        update: Any = tx.update

        def step(carry, _):
            x, state = carry
            seen = []

            def values_of(candidates):
                seen.append(candidates)
                return rastrigin(candidates)

            updates, state = update(None, state, x, candidates_value_fn=values_of)
            kept = keep(x, seen[0], state.info)
            return (optax.apply_updates(x, updates), state), kept

        return jax.lax.scan(step, (start, tx.init(start)), length=num_steps)[1]

    starts = jnp.asarray(starts, jnp.float32)
    keys = jax.vmap(jax.random.key)(jnp.arange(len(starts)))
    return jax.tree.map(np.asarray, search(starts, keys))


def convergence(budget: int, starts: np.ndarray) -> Figure:
    """Figure 2: A, expected and best loss; B, the rate at which tunnelling fades."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    panels: Any = figure.subplots(1, 3, width_ratios=(1.25, 1, 1))
    starts = starts[:5]
    _losses(panels[0], budget, starts)
    for axes, epsilon in zip(panels[1:], EPSILONS, strict=True):
        _decays(axes, epsilon, budget // PAPER_K, starts)
    panels[2].sharey(panels[1])
    figure.suptitle(f"30-D Rastrigin, {budget:,} evaluations, {len(starts)} seeds")
    return figure


def _losses(axes: Axes, budget: int, starts: np.ndarray) -> None:
    def losses(x, candidates, info):
        return info.expected_loss, info.best_loss

    faithful = trace(PAPER, starts, budget // PAPER_K, losses)
    histories = [
        qiaso_jax.minimize(
            rastrigin,
            jnp.asarray(start, jnp.float32),
            sigma=WORKING_SIGMA,
            max_evaluations=budget,
            key=seed,
        ).history
        for seed, start in enumerate(starts)
    ]
    working = (
        np.array([history.expected_loss for history in histories]),
        np.array([history.best_loss for history in histories]),
    )
    for name, colour, (expected, best) in (
        ("faithful", "tab:red", faithful),
        ("working", "tab:blue", working),
    ):
        num_steps = expected.shape[1]
        label = f"{name}, K = {budget // num_steps}"
        thousands = np.arange(1, num_steps + 1) * (budget / num_steps / 1000)
        _band(axes, thousands, expected, f"{label}: expected", colour, "-")
        _band(axes, thousands, best, f"{label}: best", colour, ":")
    axes.set(
        title="A. Loss of the superposition",
        xlabel="thousands of evaluations (iterations × K)",
        ylabel="loss of an iteration",
        yscale="log",
    )
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)


def _decays(axes: Axes, epsilon: float, num_steps: int, starts: np.ndarray) -> None:
    for index, decay in enumerate(DECAYS):
        settings = paper_settings(epsilon=epsilon, decay=decay)
        best = trace(settings, starts, num_steps, lambda x, c, info: info.best_loss)
        best = np.minimum.accumulate(best, axis=1)
        _band(axes, np.arange(1, num_steps + 1), best, f"{decay:g}", f"C{index}", "-")
    axes.set(
        title=f"B. Faithful, ε = {epsilon:g}",
        xlabel="iterations",
        ylabel="best loss so far",
        xscale="log",
    )
    axes.legend(title="decay rate", fontsize=8, title_fontsize=8)
    axes.grid(alpha=0.3)


def _band(axes: Axes, x: Any, values: Any, label: str, colour: str, style: str) -> None:
    """The median over seeds, and its quartiles as a band."""
    low, middle, high = np.percentile(values, [25, 50, 75], axis=0)
    axes.plot(x, middle, style, color=colour, label=label, linewidth=1.2)
    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)


def density(budget: int, starts: np.ndarray) -> Figure:
    """Figure 5: where the candidates are, under several exploration settings."""
    del budget
    panels = {
        "faithful: σ = 0.02, ε = 0.02": PAPER,
        "faithful: σ = 0.02, ε = 0.5": paper_settings(epsilon=0.5),
        "faithful: σ = 0.5, ε = 0.02": paper_settings(sigma=0.5),
    } | {
        f"working: σ from {sigma:.2g}": working_settings(sigma, PLANE_STEPS)
        for sigma in (0.5, HALF_WIDTH / 3, WORKING_SIGMA)
    }
    figure = Figure(figsize=(10.5, 7), layout="constrained")
    grid: Any = figure.subplots(2, 3, sharex=True, sharey=True)
    here = np.tile(PLANE_START, (len(starts), 1))
    minima = np.stack(np.meshgrid(*[np.arange(-5, 6)] * 2), axis=-1).reshape(-1, 2)
    drawn: Any = None
    for axes, (title, settings) in zip(grid.flat, panels.items(), strict=True):
        where = trace(settings, here, PLANE_STEPS, lambda x, c, info: c)
        where = where.reshape(-1, 2)
        axes.plot(*minima.T, ".", color="grey", markersize=2.5)
        drawn = axes.hist2d(
            *where.T,
            bins=64,
            range=[[-HALF_WIDTH, HALF_WIDTH]] * 2,
            weights=np.full(len(where), 1 / len(where)),
            norm=LogNorm(1e-5, 1),
            cmap="viridis",
            cmin=1e-9,
        )[3]
        axes.plot(*PLANE_START, "x", color="tab:red", markersize=9, label="start")
        axes.plot(0, 0, "+", color="black", markersize=11, label="global minimum")
        axes.set(title=title, aspect="equal")
    grid[0, 0].legend(fontsize=8, loc="lower right")
    for axes in grid[1]:
        axes.set_xlabel("$x_1$")
    for axes in grid[:, 0]:
        axes.set_ylabel("$x_2$")
    figure.colorbar(drawn, ax=grid, label="share of candidates", shrink=0.8)
    figure.suptitle(
        f"2-D Rastrigin: candidates of {PLANE_STEPS} iterations, K = 30, "
        f"{len(starts)} seeds; a grey dot is a minimum"
    )
    return figure


def trajectories(budget: int, starts: np.ndarray) -> Figure:
    """Figure 6: A, the landscape; B, candidates and centres on their way over it."""
    del budget, starts
    figure = Figure(figsize=(11, 5), layout="constrained")
    surface: Any = figure.add_subplot(1, 2, 1, projection="3d")
    x, y, height = _landscape()
    surface.plot_surface(x, y, height, cmap="viridis", rcount=90, ccount=90)
    surface.set_title("A. The landscape of the 2-D Rastrigin function")
    paths: Any = figure.add_subplot(1, 2, 2, projection="3d")
    paths.computed_zorder = False  # the floor would hide what is in front of it
    floor = -20.0
    paths.contourf(x, y, height, levels=12, offset=floor, cmap="Greys", alpha=0.5)
    num_steps = 120
    corners = np.array([(-4.2, -3.8), (4.4, -2.6), (3.1, 4.3), (-3.6, 3.3)])
    settings = working_settings(WORKING_SIGMA, num_steps)
    centres, candidates = trace(settings, corners, num_steps, lambda x, c, info: (x, c))
    for index, (path, cloud) in enumerate(zip(centres, candidates, strict=True)):
        few = cloud[::4, ::3].reshape(-1, 2)
        few = few[np.all(np.abs(few) <= HALF_WIDTH, axis=1)]
        colour = f"C{index}"
        paths.scatter(*few.T, rastrigin(few, np), color=colour, s=6, alpha=0.5)
        paths.plot(*path.T, floor, color=colour, linewidth=1, linestyle=":")
        paths.plot(*path.T, rastrigin(path, np), color=colour, linewidth=1.2)
        paths.scatter(
            *path[0],
            rastrigin(path[0], np),
            color=colour,
            s=60,
            marker="^",
            label=None if index else "start",
        )
    paths.scatter(0, 0, 0, color="black", s=80, marker="*", label="global minimum")
    paths.set_title("B. Candidates (dots) and centres (lines) of four searches")
    paths.legend(loc="upper right")
    for axes in (surface, paths):
        axes.set(xlabel="$x_1$", ylabel="$x_2$")
        axes.set(zlabel="loss", zticks=range(0, 81, 20))
        axes.set_box_aspect(None, zoom=0.87)
    return figure


def _landscape() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    line = np.linspace(-HALF_WIDTH, HALF_WIDTH, 181)
    x, y = np.meshgrid(line, line)
    return x, y, rastrigin(np.stack([x, y], axis=-1), np)


FIGURES: dict[str, Callable[[int, np.ndarray], Figure]] = {
    "figure2_convergence": convergence,
    "figure5_density": density,
    "figure6_trajectories": trajectories,
}
