"""Figure 2: convergence on the 30-D Rastrigin function, and the decay of tunnelling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import qiaso_jax
from benchmarks.paper.columns import Cell, Row, tabulated
from benchmarks.paper.figures.figure2_drawing import figure
from benchmarks.paper.figures.rastrigin_traces import (
    LEGEND,
    PAPER_K,
    first_to_last,
    paper_settings,
    quartiles,
    trace,
)
from benchmarks.paper.section import (
    Section,
    Verdict,
    judged_either,
    reproduced,
    share,
)
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
    forms = {
        "faithful": printed_losses(budget, starts),
        WIDER: printed_losses(budget, starts, sigma=0.5),
        "working": working_losses(budget, starts),
    }
    return {
        "evaluations": budget,
        "seeds": seeds,
        "decays": list(decays),
        "forms": {name: losses_kept(each, budget) for name, each in forms.items()},
        "tunnelling": {
            f"{epsilon:g}": [
                decay_kept(epsilon, decay, budget, starts) for decay in decays
            ]
            for epsilon in epsilons
        },
    }


def printed_losses(
    budget: int, starts: np.ndarray, **changes: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Expected and best loss of every iteration of the printed algorithm."""
    return trace(
        paper_settings(**changes),
        starts,
        budget // PAPER_K,
        lambda x, candidates, info: (info.expected_loss, info.best_loss),
    )


def working_losses(budget: int, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same of ``minimize`` without covariance."""

    @jax.jit
    @jax.vmap
    def search(start, seed):
        return qiaso_jax.minimize(
            rastrigin,
            start,
            sigma=WORKING_SIGMA,
            max_evaluations=budget,
            covariance=None,
            key=seed,
        ).history

    # Under vmap all histories are of the whole budget, as the figure needs them.
    history = search(jnp.asarray(starts, jnp.float32), jnp.arange(len(starts)))
    return np.asarray(history.expected_loss), np.asarray(history.best_loss)


def losses_kept(losses: Sequence[np.ndarray], budget: int) -> dict[str, Any]:
    """Of ``[seeds, steps]``: curves, the share of rising steps, the last losses."""
    expected, best = losses
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
    _, best = printed_losses(budget, starts, epsilon=epsilon, decay=decay)
    best = np.minimum.accumulate(best, axis=1)
    where = first_to_last(best.shape[1], POINTS // 2, logarithmic=True)
    return {
        "decay": decay,
        "iterations": where + 1,
        "best": quartiles(best, where),
        "last": best[:, -1],
    }


def section(content: dict[str, Any]) -> Section:
    """Panels A and B, with what the caption says of them."""
    forms, decays = content["forms"], content["tunnelling"]
    losses = tabulated(
        [{"form": name, **form} for name, form in forms.items()],
        ("form", "{form}"),
        ("K", "{population}"),
        (
            "steps at which the expected loss rises",
            lambda row: share(np.mean(row["rising"])),
        ),
        ("expected loss, first", median("first_expected", ".3g")),
        ("expected loss, last", median("last_expected", ".3g")),
        ("best loss ever", median("best_ever", ".3g")),
    )
    ends = tabulated(
        [
            {"decay": rows[0]["decay"]}
            | {e: row["last"] for e, row in zip(decays, rows, strict=True)}
            for rows in zip(*decays.values(), strict=True)
        ],
        ("decay rate", "{decay:g}"),
        *((f"ε = {epsilon}", median(epsilon, ".4g")) for epsilon in decays),
    )
    return Section(
        "Figure 2: convergence on Rastrigin's function",
        f"{content['evaluations']:,} evaluations of the {DIMENSION}-D Rastrigin "
        f"function, {content['seeds']} seeds; medians.\n\n{losses}\n"
        "Best loss of the printed algorithm at the end, by the rate at which the "
        f"probability of tunnelling decays (1: never):\n\n{ends}\n{LEGEND}",
        [monotone(forms), low(forms), *(deeper(*each) for each in decays.items())],
        {"figure2.svg": figure(content)},
    )


def median(key: str, form: str) -> Cell:
    """A cell with the median of what a row has under ``key``."""
    return lambda row: format(np.median(row[key]), form)


def monotone(forms: dict[str, Row]) -> Verdict:
    """Whether no step raises the expected loss."""
    rising = {name: float(np.mean(form["rising"])) for name, form in forms.items()}
    return Verdict(
        "Figure 2A: the expected loss decreases monotonically",
        "it rises at "
        + ", ".join(f"{share(x)} of the steps ({name})" for name, x in rising.items()),
        judged_either(rising["faithful"] == 0, min(rising.values()) == 0),
    )


def low(forms: dict[str, Row]) -> Verdict:
    """Whether the expected loss ends low."""
    last = {name: float(np.median(f["last_expected"])) for name, f in forms.items()}
    return Verdict(
        "Figure 2A: QIASO converges to a low-loss region of 30-D Rastrigin",
        "expected loss at the end "
        + ", ".join(f"{x:.3g} ({name})" for name, x in last.items())
        + f"; low is below {LOW:g}",
        judged_either(last["faithful"] < LOW, min(last.values()) < LOW),
    )


def deeper(epsilon: str, decays: list[dict[str, Any]]) -> Verdict:
    """Whether the slowest decay ends below the fastest, seed by seed."""
    gain = np.subtract(decays[0]["last"], decays[-1]["last"])
    error = gain.std(ddof=1) / np.sqrt(len(gain))
    told = "no different"
    if abs(gain.mean()) > ERRORS * error:
        told = "deeper" if gain.mean() > 0 else "less deep"
    medians = ", ".join(f"{d['decay']:g}: {np.median(d['last']):.4g}" for d in decays)
    return Verdict(
        f"Figure 2B, ε = {epsilon}: slower decay of tunnelling reaches deeper losses",
        f"the slowest is {told} than the fastest, by {gain.mean():.3g} ± {error:.2g} "
        f"(mean of pairs, standard error); medians by rate {medians}",
        reproduced(told == "deeper"),
    )
