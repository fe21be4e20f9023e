"""Sections 2 and 3.2.3: what is said of jumps, with their tables and a figure."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.markdown import table
from benchmarks.paper.section import reproduced, share
from benchmarks.paper.theory.claims import ERRORS, Claims, Outcome
from benchmarks.paper.theory.escape import (
    BARRIERS,
    CUMULATIVE_BARRIER,
    CUMULATIVE_STEPS,
    NORM_BARRIER,
)
from qiaso_jax import plot

EACH = f"{{draws:,}} jumps for each of {len(BARRIERS)} barriers"
NORMS = f"{{draws:,}} jumps, Δ = {NORM_BARRIER:g} εσ"

CLAIMS = Claims()


@CLAIMS.add(
    "Section 2, T(θ)", "T = γ/(1 + e^(αℓ)) makes jumps out of high losses more likely"
)
def _gate(content: dict[str, Any]) -> Outcome:
    losses, printed, described = content["gate"].values()
    rises = bool(np.all(np.diff(printed) > 0))
    pairs = [
        f"{losses[i]:g}: {printed[i]:.3g} ({described[i]:.3g})" for i in (0, 2, -1)
    ]
    return Outcome(
        "length of jumps over the loss, α = γ = 1; in brackets for 1/(1 + e^(−αℓ))",
        f"the printed T {'rises' if rises else 'falls'} with the loss; at "
        + ", ".join(pairs),
        reproduced(rises, "contradictory"),
    )


@CLAIMS.add("Eq 67", "P(εξ ≥ Δ) is the normal tail Q(Δ/(εσ))")
def _tail(content: dict[str, Any]) -> Outcome:
    away = max(abs(b["errors_away"]) for b in content["barriers"])
    return Outcome(
        EACH.format(**content),
        f"simulated within {away:.2g} standard errors",
        reproduced(away < ERRORS, "wrong"),
    )


@CLAIMS.add("Eq 68", "P(ξ ≥ Δ/ε) ≤ exp(−Δ²/(2ε²σ²))")
def _upper_bound(content: dict[str, Any]) -> Outcome:
    above = sum(b["exact"] > b["eq68"] for b in content["barriers"])
    return Outcome(
        EACH.format(**content),
        f"violated at {above} barriers",
        reproduced(above == 0, "wrong"),
    )


@CLAIMS.add("Eq 69", "a jump escapes with probability at least 1 − exp(−Δ²/(2ε²σ²))")
def _lower_bound(content: dict[str, Any]) -> Outcome:
    barriers = content["barriers"]
    over = sum(b["eq69"] > b["exact"] for b in barriers)
    most = max(barriers, key=lambda b: b["eq69"] - b["exact"])
    complement = all(b["eq69"] <= 1 - b["exact"] for b in barriers)
    return Outcome(
        EACH.format(**content),
        f"exceeds the exact one at {over} of {len(barriers)}"
        + (f", from {content['crossing']:.3g} εσ on" if over else "")
        + f"; at {most['z']:g} εσ {most['eq69']:.4g} against {most['exact']:.2g}"
        + ("; it is a bound for *not* escaping" if complement else ""),
        reproduced(over == 0, "wrong"),
    )


@CLAIMS.add(
    "Eq 69 against section 3.2.3", "larger ε and σ increase the tunnelling probability"
)
def _scale(content: dict[str, Any]) -> Outcome:
    exact, eq69 = (
        np.diff([b[name] for b in content["barriers"]]) for name in ("exact", "eq69")
    )
    falls = bool(np.all(exact < 0) and np.all(eq69 > 0))
    return Outcome(
        "the same barriers, ε growing",
        "the exact probability rises and Eq 69 falls"
        if falls
        else "Eq 69 and the exact probability change alike",
        reproduced(not falls, "contradictory"),
    )


@CLAIMS.add(
    "Eq 68 for ε‖ξ‖",
    "the tail of the length that section 3.2.3 starts from obeys Eq 68",
)
def _length(content: dict[str, Any]) -> Outcome:
    norms = content["norms"]
    bound = norms[-1]["eq68"]
    return Outcome(
        f"{NORMS.format(**content)}, n = {', '.join(str(n['n']) for n in norms)} "
        "weights",
        "; ".join(f"n = {n['n']}: {n['exact']:.3g}" for n in norms)
        + f" against {bound:.3g}",
        reproduced(all(n["exact"] <= bound * (1 + 1e-9) for n in norms), "wrong"),
    )


@CLAIMS.add("Section 3.2.3", "ε‖ξ‖ ≥ Δ suffices to cross a barrier")
def _sufficient(content: dict[str, Any]) -> Outcome:
    last = content["norms"][-1]
    passed = last["crossed"] / last["simulated"]
    return Outcome(
        f"{NORMS.format(**content)}, n = {last['n']} weights, a barrier across one "
        "direction",
        f"with {last['n']} weights {share(passed)} of the jumps that are long "
        "enough cross a barrier in one direction",
        reproduced(passed >= 1, "wrong"),
    )


@CLAIMS.add("Eq 70", "escape within T steps has probability 1 − Π(1 − p_t P)")
def _cumulative(content: dict[str, Any]) -> Outcome:
    runs = content["cumulative"]
    away = abs(runs["simulated"] - runs["exact"]) / runs["error"]
    return Outcome(
        f"{runs['runs']:,} runs of {CUMULATIVE_STEPS} steps, Δ = "
        f"{CUMULATIVE_BARRIER:g} εσ, decay 0.995",
        f"with the exact P {runs['exact']:.3g}, simulated {runs['simulated']:.3g}, "
        f"{away:.2g} standard errors apart; with Eq 69 {runs['with_eq69']:.3g}",
        reproduced(away < ERRORS, "wrong"),
    )


def body(content: dict[str, Any]) -> str:
    """Escape over the barrier, and the gate over the loss, in Markdown."""
    columns = {
        "Δ/(εσ)": "{z:g}",
        "simulated": "{simulated:.4g} ± {error:.1g}",
        "exact": "{exact:.4g}",
        "lower bound": "{lower:.4g}",
        "upper bound": "{upper:.4g}",
        "Eq 68": "{eq68:.4g}",
        'Eq 69, "at least"': "{eq69:.4g}",
    }
    barriers = [
        [cell.format(**b) for cell in columns.values()] for b in content["barriers"]
    ]
    lengths = zip(*content["gate"].values(), strict=True)
    return (
        f"Escape in one jump, {content['draws']:,} jumps for each barrier; the bounds "
        "are Mills' (Abramowitz and Stegun, 7.1.13):\n\n"
        + table(list(columns), barriers)
        + "\nEq 68 bounds an escape from above. Eq 69 takes 1 minus that bound as a "
        "bound of an escape from below; it is one of *no* escape: the higher the "
        "barrier, the surer the escape it promises.\n\n"
        "Root mean square of jumps of 30 weights, εσ = α = γ = 1:\n\n"
        + table(
            ("loss", "T = 1/(1 + e^(αℓ)), printed", "T = 1/(1 + e^(−αℓ)), described"),
            [tuple(f"{x:.3g}" for x in row) for row in lengths],
        )
    )


@plot.style()
def figure(content: dict[str, Any]) -> Figure:
    """Escape probability over the height of the barrier."""
    figure = Figure(figsize=(plot.WIDTH, 6.4), layout="constrained")
    panels: Any = figure.subplots(2, 1, sharex=True)
    curve = content["curve"]
    seen = [b for b in content["barriers"] if b["simulated"] > 0]
    z, simulated, error = ([b[k] for b in seen] for k in ("z", "simulated", "error"))
    for axes in panels:
        for name, label, style, colour in (
            ("exact", "exact (Eq 67)", "-", plot.GREY),
            ("eq68", "Eq 68, upper bound", "--", plot.COLOURS[0]),
            ("eq69", 'Eq 69, "lower bound"', "--", plot.COLOURS[3]),
        ):
            axes.plot(curve["z"], curve[name], style, color=colour, label=label)
        axes.errorbar(
            z,
            simulated,
            yerr=2 * np.array(error),
            fmt="o",
            color=plot.GREY,
            label="simulated, ± 2 standard errors",
        )
        axes.set_ylabel("escape in one jump")
    panels[0].legend()
    panels[1].set(yscale="log", ylim=(1e-6, 2), xlabel="height of the barrier, Δ/(εσ)")
    plot.caption(
        figure,
        f"Probability that one jump of tunnelling clears a barrier, of "
        f"{content['draws']:,} jumps each; below on a logarithmic axis.",
    )
    return figure
