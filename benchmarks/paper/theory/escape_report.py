"""What ``theory_escape`` measured: findings, tables and a figure."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.markdown import table
from benchmarks.paper.theory.escape import (
    CUMULATIVE_BARRIER,
    CUMULATIVE_STEPS,
    NORM_BARRIER,
)
from benchmarks.paper.theory.findings import ERRORS, Finding, share


def findings(content: dict[str, Any]) -> list[Finding]:
    """In the order of the paper."""
    return [
        _gate(content["gate"]),
        *_one_coordinate(content),
        *_norm(content),
        _cumulative(content["cumulative"]),
    ]


def _gate(gate: dict[str, list[float]]) -> Finding:
    printed, described = gate["as_printed"], gate["as_described"]
    rises = bool(np.all(np.diff(printed) > 0))
    pairs = [
        f"{gate['loss'][i]:g}: {printed[i]:.3g} ({described[i]:.3g})"
        for i in (0, 2, -1)
    ]
    return Finding(
        "Section 2, T(θ)",
        "T = γ/(1 + e^(αℓ)) makes jumps out of high losses more likely",
        "length of jumps over the loss, α = γ = 1; in brackets for 1/(1 + e^(−αℓ))",
        f"the printed T {'rises' if rises else 'falls'} with the loss; at "
        + ", ".join(pairs),
        "reproduced" if rises else "contradictory",
    )


def _one_coordinate(content: dict[str, Any]) -> list[Finding]:
    barriers = content["barriers"]
    test = f"{content['draws']:,} jumps for each of {len(barriers)} barriers"
    away = max(abs(b["errors_away"]) for b in barriers)
    above = [b for b in barriers if b["exact"] > b["eq68"]]
    over = [b for b in barriers if b["eq69"] > b["exact"]]
    most = max(barriers, key=lambda b: b["eq69"] - b["exact"])
    complement = all(b["eq69"] <= 1 - b["exact"] for b in barriers)
    eq69 = [b["eq69"] for b in barriers]
    exact = [b["exact"] for b in barriers]
    falls = bool(np.all(np.diff(exact) < 0) and np.all(np.diff(eq69) > 0))
    return [
        Finding(
            "Eq 67",
            "P(εξ ≥ Δ) is the normal tail Q(Δ/(εσ))",
            test,
            f"simulated within {away:.2g} standard errors",
            "reproduced" if away < ERRORS else "wrong",
        ),
        Finding(
            "Eq 68",
            "P(ξ ≥ Δ/ε) ≤ exp(−Δ²/(2ε²σ²))",
            test,
            f"violated at {len(above)} barriers",
            "wrong" if above else "reproduced",
        ),
        Finding(
            "Eq 69",
            "a jump escapes with probability at least 1 − exp(−Δ²/(2ε²σ²))",
            test,
            f"exceeds the exact one at {len(over)} of {len(barriers)}"
            + (f", from {content['crossing']:.3g} εσ on" if over else "")
            + f"; at {most['z']:g} εσ {most['eq69']:.4g} against {most['exact']:.2g}"
            + ("; it is a bound for *not* escaping" if complement else ""),
            "wrong" if over else "reproduced",
        ),
        Finding(
            "Eq 69 against section 3.2.3",
            "larger ε and σ increase the tunnelling probability",
            "the same barriers, ε growing",
            "the exact probability rises and Eq 69 falls"
            if falls
            else "Eq 69 and the exact probability change alike",
            "contradictory" if falls else "reproduced",
        ),
    ]


def _norm(content: dict[str, Any]) -> list[Finding]:
    norms = content["norms"]
    test = f"{content['draws']:,} jumps, Δ = {NORM_BARRIER:g} εσ"
    too_small = [n for n in norms if n["exact"] > n["eq68"] * (1 + 1e-9)]
    last = norms[-1]
    passed = last["crossed"] / last["simulated"]
    return [
        Finding(
            "Eq 68 for ε‖ξ‖",
            "the tail of the length that section 3.2.3 starts from obeys Eq 68",
            f"{test}, n = {', '.join(str(n['n']) for n in norms)} weights",
            "; ".join(f"n = {n['n']}: {n['exact']:.3g}" for n in norms)
            + f" against {last['eq68']:.3g}",
            "wrong" if too_small else "reproduced",
        ),
        Finding(
            "Section 3.2.3",
            "ε‖ξ‖ ≥ Δ suffices to cross a barrier",
            f"{test}, n = {last['n']} weights, a barrier across one direction",
            f"with {last['n']} weights {share(passed)} of the jumps that are long "
            "enough cross a barrier in one direction",
            "wrong" if passed < 1 else "reproduced",
        ),
    ]


def _cumulative(content: dict[str, float]) -> Finding:
    away = abs(content["simulated"] - content["exact"]) / content["error"]
    return Finding(
        "Eq 70",
        "escape within T steps has probability 1 − Π(1 − p_t P)",
        f"{content['runs']:,} runs of {CUMULATIVE_STEPS} steps, Δ = "
        f"{CUMULATIVE_BARRIER:g} εσ, decay 0.995",
        f"with the exact P {content['exact']:.3g}, simulated "
        f"{content['simulated']:.3g}, {away:.2g} standard errors apart; with Eq 69 "
        f"{content['with_eq69']:.3g}",
        "reproduced" if away < ERRORS else "wrong",
    )


def body(content: dict[str, Any]) -> str:
    """Escape over the barrier, and the gate over the loss, in Markdown."""
    barriers = [
        (
            f"{b['z']:g}",
            f"{b['simulated']:.4g} ± {b['error']:.1g}",
            *(f"{b[name]:.4g}" for name in ("exact", "lower", "upper", "eq68", "eq69")),
        )
        for b in content["barriers"]
    ]
    gate = content["gate"]
    lengths = zip(gate["loss"], gate["as_printed"], gate["as_described"], strict=True)
    return (
        f"Escape in one jump, {content['draws']:,} jumps for each barrier; the bounds "
        "are Mills' (Abramowitz and Stegun, 7.1.13):\n\n"
        + table(
            (
                "Δ/(εσ)",
                "simulated",
                "exact",
                "lower bound",
                "upper bound",
                "Eq 68",
                'Eq 69, "at least"',
            ),
            barriers,
        )
        + "\nEq 68 bounds an escape from above. Eq 69 takes 1 minus that bound as a "
        "bound of an escape from below; it is one of *no* escape: the higher the "
        "barrier, the surer the escape it promises.\n\n"
        "Root mean square of jumps of 30 weights, εσ = α = γ = 1:\n\n"
        + table(
            ("loss", "T = 1/(1 + e^(αℓ)), printed", "T = 1/(1 + e^(−αℓ)), described"),
            [tuple(f"{x:.3g}" for x in row) for row in lengths],
        )
    )


def figure(content: dict[str, Any]) -> Figure:
    """Escape probability over the height of the barrier."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    panels: Any = figure.subplots(1, 2)
    curve, barriers = content["curve"], content["barriers"]
    for axes in panels:
        for name, label, style in (
            ("exact", "exact (Eq 67)", "k-"),
            ("eq68", "Eq 68, upper bound", "C0--"),
            ("eq69", 'Eq 69, "lower bound"', "C3--"),
        ):
            axes.plot(curve["z"], curve[name], style, label=label, linewidth=1.2)
        seen = [b for b in barriers if b["simulated"] > 0]
        axes.errorbar(
            [b["z"] for b in seen],
            [b["simulated"] for b in seen],
            yerr=[2 * b["error"] for b in seen],
            fmt="k.",
            label="simulated, ± 2 standard errors",
        )
        axes.set(xlabel="height of the barrier, Δ/(εσ)", ylabel="escape in one jump")
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize=8)
    panels[1].set(yscale="log", ylim=(1e-6, 2))
    return figure
