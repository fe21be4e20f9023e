"""Figure 2: convergence on the 30-D Rastrigin function, and the decay of tunnelling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import qiaso_jax
from benchmarks.markdown import table
from benchmarks.paper.figures.rastrigin_traces import (
    LEGEND,
    PAPER_K,
    first_to_last,
    paper_settings,
    quartiles,
    trace,
)
from benchmarks.paper.section import Section, Verdict, judged_either, share
from benchmarks.paper.study import Study
from benchmarks.rastrigin.methods import (
    DIMENSION,
    PAPER,
    WORKING_SIGMA,
    rastrigin,
    starting_points,
)

DECAYS = (0.9, 0.99, 0.995, 0.999, 1.0)
EPSILONS = (PAPER["tunnelling"].epsilon, 0.5)
WIDER = "faithful, σ = 0.5"
"""The paper does not give σ."""
POINTS = 120
"""Of a curve that is kept."""
LOW = 1.0 * DIMENSION
"""A low loss: that of a minimum next to the global one in every coordinate."""
ERRORS = 2
"""Standard errors by which the ends of the decays have to differ."""


def measure(study: Study) -> dict[str, Any]:
    """Quartiles of the curves, and where every seed ended."""
    smoke = study.profile == "smoke"
    budget, seeds = (3_000, 2) if smoke else (300_000, 5)
    starts = starting_points(seeds)
    decays, epsilons = (DECAYS[::4], EPSILONS[1:]) if smoke else (DECAYS, EPSILONS)
    return {
        "evaluations": budget,
        "seeds": seeds,
        "decays": list(decays),
        "forms": {
            "faithful": losses_kept(*losses_of(PAPER, budget, starts), budget),
            WIDER: losses_kept(
                *losses_of(paper_settings(sigma=0.5), budget, starts), budget
            ),
            "working": losses_kept(*working_losses(budget, starts), budget),
        },
        "tunnelling": {
            f"{epsilon:g}": [
                decay_kept(epsilon, decay, budget, starts) for decay in decays
            ]
            for epsilon in epsilons
        },
    }


def losses_of(
    settings: Mapping[str, Any], budget: int, starts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Expected and best loss of every iteration."""
    return trace(
        settings,
        starts,
        budget // PAPER_K,
        lambda x, candidates, info: (info.expected_loss, info.best_loss),
    )


def working_losses(budget: int, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same of ``minimize``."""
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
    expected, best = (
        np.array([getattr(history, name) for history in histories])
        for name in ("expected_loss", "best_loss")
    )
    return expected, best


def losses_kept(expected: np.ndarray, best: np.ndarray, budget: int) -> dict[str, Any]:
    """Of ``[seeds, steps]``: curves, the share of rising steps, the last losses."""
    num_steps = expected.shape[1]
    where = first_to_last(num_steps, POINTS, logarithmic=False)
    return {
        "population": budget // num_steps,
        "iterations": num_steps,
        "thousands": (where + 1) * (budget / num_steps / 1000),
        "expected": quartiles(expected, where),
        "best": quartiles(best, where),
        "rising": np.mean(np.diff(expected, axis=1) > 0, axis=1),
        "first_expected": expected[:, 0],
        "last_expected": expected[:, -1],
        "best_ever": best.min(axis=1),
    }


def decay_kept(
    epsilon: float, decay: float, budget: int, starts: np.ndarray
) -> dict[str, Any]:
    """The best loss so far of the printed algorithm under one decay."""
    settings = paper_settings(epsilon=epsilon, decay=decay)
    num_steps = budget // PAPER_K
    best = trace(settings, starts, num_steps, lambda x, c, info: info.best_loss)
    best = np.minimum.accumulate(best, axis=1)
    where = first_to_last(num_steps, POINTS // 2, logarithmic=True)
    return {
        "decay": decay,
        "iterations": where + 1,
        "best": quartiles(best, where),
        "last": best[:, -1],
    }


def section(content: dict[str, Any]) -> Section:
    """Panels A and B, with what the caption says of them."""
    forms, rows = content["forms"], content["tunnelling"]
    losses = [
        (
            name,
            form["population"],
            share(np.mean(form["rising"])),
            *(
                f"{np.median(form[key]):.3g}"
                for key in ("first_expected", "last_expected", "best_ever")
            ),
        )
        for name, form in forms.items()
    ]
    decays = [
        (f"{one['decay']:g}", *(f"{np.median(each['last']):.4g}" for each in both))
        for one, both in zip(*_by_decay(rows), strict=True)
    ]
    body = (
        f"{content['evaluations']:,} evaluations of the {DIMENSION}-D Rastrigin "
        f"function, {content['seeds']} seeds; medians.\n\n"
        + table(
            (
                "form",
                "K",
                "steps at which the expected loss rises",
                "expected loss, first",
                "expected loss, last",
                "best loss ever",
            ),
            losses,
        )
        + "\nBest loss of the printed algorithm at the end, by the rate at which the "
        "probability of tunnelling decays (1: never):\n\n"
        + table(("decay rate", *(f"ε = {epsilon}" for epsilon in rows)), decays)
    )
    verdicts = [_monotone(forms), _low(forms), *(_decay(*row) for row in rows.items())]
    return Section(
        "Figure 2: convergence on Rastrigin's function",
        body + "\n" + LEGEND,
        verdicts,
        {"figure2.png": figure(content)},
    )


def _by_decay(rows: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    columns = list(rows.values())
    return columns[0], list(zip(*columns, strict=True))


def _monotone(forms: dict[str, Any]) -> Verdict:
    rising = {name: float(np.mean(form["rising"])) for name, form in forms.items()}
    return Verdict(
        "Figure 2A: the expected loss decreases monotonically",
        "it rises at "
        + ", ".join(f"{share(x)} of the steps ({name})" for name, x in rising.items()),
        judged_either(rising["faithful"] == 0, min(rising.values()) == 0),
    )


def _low(forms: dict[str, Any]) -> Verdict:
    last = {name: float(np.median(f["last_expected"])) for name, f in forms.items()}
    return Verdict(
        "Figure 2A: QIASO converges to a low-loss region of 30-D Rastrigin",
        "expected loss at the end "
        + ", ".join(f"{x:.3g} ({name})" for name, x in last.items())
        + f"; low is below {LOW:g}",
        judged_either(last["faithful"] < LOW, min(last.values()) < LOW),
    )


def _decay(epsilon: str, decays: list[dict[str, Any]]) -> Verdict:
    fastest, slowest = decays[0], decays[-1]
    gain = np.subtract(fastest["last"], slowest["last"])
    error = gain.std(ddof=1) / np.sqrt(len(gain))
    deeper = bool(gain.mean() > ERRORS * error)
    shallower = bool(gain.mean() < -ERRORS * error)
    told = "deeper" if deeper else "less deep" if shallower else "no different"
    medians = ", ".join(f"{d['decay']:g}: {np.median(d['last']):.4g}" for d in decays)
    return Verdict(
        f"Figure 2B, ε = {epsilon}: slower decay of tunnelling reaches deeper losses",
        f"the slowest is {told} than the fastest, by {gain.mean():.3g} ± {error:.2g} "
        f"(mean of pairs, standard error); medians by rate {medians}",
        "reproduced" if deeper else "not reproduced",
    )


def figure(content: dict[str, Any]) -> Figure:
    """A, expected and best loss; B, the rate at which tunnelling fades."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    rows = content["tunnelling"]
    widths = (1.25, *[1] * len(rows))
    panels: Any = figure.subplots(1, len(widths), width_ratios=widths)
    _draw_losses(panels[0], content["forms"])
    for axes, (epsilon, decays) in zip(panels[1:], rows.items(), strict=True):
        _draw_decays(axes, epsilon, decays)
    for axes in panels[2:]:
        axes.sharey(panels[1])
    figure.suptitle(
        f"{DIMENSION}-D Rastrigin, {content['evaluations']:,} evaluations, "
        f"{content['seeds']} seeds"
    )
    return figure


def _draw_losses(axes: Axes, forms: dict[str, Any]) -> None:
    for (name, form), colour in zip(
        forms.items(), ("tab:red", "tab:orange", "tab:blue"), strict=True
    ):
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
    axes.grid(alpha=0.3)


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
    axes.grid(alpha=0.3)


def _band(
    axes: Axes, x: Any, quartiles: Any, label: str, colour: str, style: str
) -> None:
    """The median over seeds, and its quartiles as a band."""
    low, middle, high = quartiles
    axes.plot(x, middle, style, color=colour, label=label, linewidth=1.2)
    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
