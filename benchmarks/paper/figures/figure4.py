"""Figure 4: convergence on MNIST, with bands over seeds."""

from __future__ import annotations

from typing import Any

from benchmarks.paper.columns import label, protocol, tabulated
from benchmarks.paper.figures import curves
from benchmarks.paper.forms import QIASO
from benchmarks.paper.section import FULL_LENGTH, Section, Verdict, Word, judged

measure = curves.measure


def section(content: dict[str, Any]) -> Section:
    """The curves, and how often each rises."""
    rows = content["rows"]
    body = tabulated(
        rows,
        ("optimizer", label),
        ("last training loss", lambda row: f"{row['train_loss'][-1]:.2g}"),
        ("epochs with a rise", lambda row: f"{100 * row['rises']:.0f} %"),
        ("protocol", protocol),
    )
    figures = {"figure4_convergence.png": curves.figure(rows)} if rows else {}
    title = "Figure 4: convergence on MNIST"
    return Section(title, body, verdicts(rows), figures)


def verdicts(rows: list[dict[str, Any]]) -> list[Verdict]:
    """Whether the training loss of QIASO falls in every epoch."""
    return [
        Verdict(
            f"Figure 4: QIASO's loss falls monotonically ({label(row)})",
            f"it rises after {100 * row['rises']:.0f} % of epochs ({row['protocol']})",
            word(row),
        )
        for row in rows
        if row["form"] in QIASO
    ]


def word(row: dict[str, Any]) -> Word:
    """A rise refutes the claim; only all of the paper's epochs can bear it out."""
    falls = row["rises"] == 0
    if falls and not row["protocol"].startswith(FULL_LENGTH):
        return "not measured"
    return judged(falls, row["form"])
