"""Section 2.1: the initial mean and spread change the accuracy by less than 0.3 %."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.markdown import table
from benchmarks.paper.forms import FORMS
from benchmarks.paper.section import Section, Verdict, judged
from benchmarks.paper.study import Study, missing

MEANS = (-0.02, 0.0, 0.02)
SPREADS = (0.01, 0.05, 0.1)
FORMS_MEASURED = ("adam", "node")
EPOCHS, SEEDS = 10, 3


def measure(study: Study) -> dict[str, Any]:
    """Final accuracies over the grid of initial weights 𝒩(μ_0, σ_0²)."""
    rows = []
    smoke = study.profile == "smoke"
    for form in FORMS_MEASURED:
        epochs = min(EPOCHS, study.experiment(study.mnist, form).epochs)
        if study.profile == "full":
            epochs = 100
        for mean in MEANS[:1] if smoke else MEANS:
            for spread in SPREADS[:2] if smoke else SPREADS:
                run = study.run(
                    study.mnist,
                    form,
                    initialisation="gaussian",
                    initial_mean=mean,
                    initial_spread=spread,
                    epochs=epochs,
                    seeds=min(SEEDS, study.experiment(study.mnist, form).seeds),
                )
                row = {"form": form, "mean": mean, "spread": spread}
                if run is None:
                    rows.append(row | {"missing": missing(study, study.mnist, form)})
                    continue
                accuracy = 100 * run.final("test_accuracy")
                rows.append(
                    row | {"accuracy": accuracy.tolist(), "protocol": str(run.protocol)}
                )
    return {"rows": rows}


def section(content: dict[str, Any]) -> Section:
    """One grid for each form."""
    parts = []
    for form in FORMS_MEASURED:
        grid = {
            (r["mean"], r["spread"]): r for r in content["rows"] if r["form"] == form
        }
        lines = [
            [f"μ_0 = {mean}", *(cell(grid.get((mean, spread))) for spread in SPREADS)]
            for mean in MEANS
        ]
        protocols = {r["protocol"] for r in grid.values() if "protocol" in r}
        parts.append(
            f"{FORMS[form].label} ({'; '.join(sorted(protocols)) or 'not run'}): test "
            "accuracy on MNIST in %, mean over seeds.\n\n"
            + table(["", *(f"σ_0 = {s}" for s in SPREADS)], lines)
        )
    return Section("Initial mean and spread", "\n".join(parts), verdicts(content))


def cell(row: dict[str, Any] | None) -> str:
    """The mean accuracy of one start, or why there is none."""
    if row is None:
        return ""
    return f"{np.mean(row['accuracy']):.2f}" if "accuracy" in row else row["missing"]


def verdicts(content: dict[str, Any]) -> list[Verdict]:
    """Whether the range over the grid is below 0.3 points."""
    result = []
    for form in FORMS_MEASURED:
        means = [
            np.mean(row["accuracy"])
            for row in content["rows"]
            if row["form"] == form and "accuracy" in row
        ]
        protocols = {
            row["protocol"]
            for row in content["rows"]
            if row["form"] == form and "protocol" in row
        }
        if len(means) == len(MEANS) * len(SPREADS):
            variation = float(max(means) - min(means))
            result.append(
                Verdict(
                    "Section 2.1: μ_0 and σ_0 change the accuracy by less than 0.3 % "
                    f"({FORMS[form].label})",
                    f"{variation:.2f} points over {len(means)} starts "
                    f"({', '.join(sorted(protocols))})",
                    judged(variation < 0.3, form, min(protocols)),
                )
            )
    return result
