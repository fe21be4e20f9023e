"""Section 2.1: the initial mean and spread change the accuracy by less than 0.3 %."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from benchmarks.markdown import table
from benchmarks.paper.columns import Row
from benchmarks.paper.forms import FORMS
from benchmarks.paper.section import Section, Verdict, judged
from benchmarks.paper.study import Study
from benchmarks.paper.tables.accuracies import kept

MEANS = (-0.02, 0.0, 0.02)
SPREADS = (0.01, 0.05, 0.1)
FORMS_MEASURED = ("adam", "node")
EPOCHS, SEEDS = 10, 3


def measure(study: Study) -> dict[str, Any]:
    """Final accuracies over the grid of initial weights 𝒩(μ_0, σ_0²)."""
    smoke = study.profile == "smoke"
    grid = itertools.product(
        FORMS_MEASURED, MEANS[:1] if smoke else MEANS, SPREADS[:2] if smoke else SPREADS
    )
    rows = []
    for form, mean, spread in grid:
        planned = study.experiment(study.mnist, form)
        row = study.row(
            study.mnist,
            form,
            kept,
            initialisation="gaussian",
            initial_mean=mean,
            initial_spread=spread,
            epochs=100 if study.profile == "full" else min(EPOCHS, planned.epochs),
            seeds=min(SEEDS, planned.seeds),
        )
        rows.append({"mean": mean, "spread": spread} | row)
    return {"rows": rows}


def section(content: dict[str, Any]) -> Section:
    """One grid for each form."""
    parts = []
    for form, rows in by_form(content).items():
        grid = {(row["mean"], row["spread"]): row for row in rows}
        lines = [
            [f"μ_0 = {mean}", *(cell(grid.get((mean, s))) for s in SPREADS)]
            for mean in MEANS
        ]
        parts.append(
            f"{FORMS[form].label} ({'; '.join(protocols(rows)) or 'not run'}): test "
            "accuracy on MNIST in %, mean over seeds.\n\n"
            + table(["", *(f"σ_0 = {s}" for s in SPREADS)], lines)
        )
    return Section("Initial mean and spread", "\n".join(parts), verdicts(content))


def by_form(content: dict[str, Any]) -> dict[str, list[Row]]:
    """The rows of each form."""
    return {
        form: [row for row in content["rows"] if row["form"] == form]
        for form in FORMS_MEASURED
    }


def protocols(rows: list[Row]) -> list[str]:
    """How those were trained that were."""
    return sorted({row["protocol"] for row in rows if "protocol" in row})


def cell(row: Row | None) -> str:
    """The mean accuracy of one start, or why there is none."""
    if row is None:
        return ""
    return f"{np.mean(row['accuracy']):.2f}" if "accuracy" in row else row["missing"]


def verdicts(content: dict[str, Any]) -> list[Verdict]:
    """Whether the range over the grid is below 0.3 points."""
    result = []
    for form, rows in by_form(content).items():
        means = [np.mean(row["accuracy"]) for row in rows if "accuracy" in row]
        if len(means) == len(MEANS) * len(SPREADS):
            variation = max(means) - min(means)
            trained = protocols(rows)
            result.append(
                Verdict(
                    "Section 2.1: μ_0 and σ_0 change the accuracy by less than 0.3 % "
                    f"({FORMS[form].label})",
                    f"{variation:.2f} points over {len(means)} starts "
                    f"({', '.join(trained)})",
                    judged(variation < 0.3, form, trained[0]),
                )
            )
    return result
