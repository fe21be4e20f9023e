"""Figure 4: convergence on MNIST, with bands over seeds."""

from __future__ import annotations

from typing import Any

from benchmarks.markdown import table
from benchmarks.paper.figures import curves
from benchmarks.paper.forms import FORMS, QIASO
from benchmarks.paper.section import FULL_LENGTH, Section, Verdict, Word, judged
from benchmarks.paper.study import Study


def measure(study: Study) -> dict[str, Any]:
    """See ``curves.measure``."""
    return curves.measure(study)


def section(content: dict[str, Any]) -> Section:
    """The curves, and how often each rises."""
    rows = content["rows"]
    body = table(
        ("optimizer", "last training loss", "epochs with a rise", "protocol"),
        [
            [
                FORMS[row["form"]].label,
                f"{row['train_loss'][-1]:.2g}",
                f"{100 * row['rises']:.0f} %",
                row["protocol"],
            ]
            for row in rows
        ],
    )
    if not rows:
        return Section("Figure 4: convergence on MNIST", body)
    return Section(
        "Figure 4: convergence on MNIST",
        body,
        verdicts(rows),
        {"figure4_convergence.png": curves.figure(rows)},
    )


def verdicts(rows: list[dict[str, Any]]) -> list[Verdict]:
    """Whether the training loss of QIASO falls in every epoch."""
    return [
        Verdict(
            f"Figure 4: QIASO's loss falls monotonically ({FORMS[row['form']].label})",
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
