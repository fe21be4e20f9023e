"""Table 3: AdamW, Lion and Sophia against QIASO, with 95 % intervals."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.markdown import table
from benchmarks.paper import statistics
from benchmarks.paper.forms import FORMS, QIASO
from benchmarks.paper.section import Section, Verdict, judged
from benchmarks.paper.study import Study, missing

BASELINES = ("adamw", "lion", "sophia")
PAPER = {
    "mnist": {
        "adamw": (98.32, 0.10),
        "lion": (98.41, 0.09),
        "sophia": (98.53, 0.08),
        "qiaso": (98.74, 0.08),
    },
    "fashion_mnist": {
        "adamw": (91.45, 0.22),
        "lion": (91.62, 0.21),
        "sophia": (92.17, 0.20),
        "qiaso": (92.31, 0.19),
    },
    "cifar10": {
        "adamw": (75.10, 0.40),
        "lion": (75.48, 0.38),
        "sophia": (75.86, 0.36),
        "qiaso": (75.84, 0.34),
    },
}
"""Accuracy in %, and its ±, whose meaning the paper does not say here."""


def measure(study: Study) -> dict[str, Any]:
    """Accuracies of all seeds for every dataset and optimizer."""
    return {"rows": accuracies(study, (*BASELINES, *QIASO))}


def accuracies(
    study: Study, forms: tuple[str, ...], datasets: tuple[str, ...] | None = None
) -> list[dict[str, Any]]:
    """One row for each dataset and form: the final accuracies in %, or what misses."""
    rows = []
    for dataset in study.datasets if datasets is None else datasets:
        for form in forms:
            run = study.run(dataset, form)
            row: dict[str, Any] = {"dataset": dataset, "form": form}
            if run is None:
                row["missing"] = missing(study, dataset, form)
            else:
                row["protocol"] = str(run.protocol)
                row["accuracy"] = (100 * run.final("test_accuracy")).tolist()
            rows.append(row)
    return rows


def interval(row: dict[str, Any]) -> str:
    """Mean ± half of the 95 % interval."""
    values = np.array(row["accuracy"])
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{values.mean():.2f} ± {statistics.half_width(values):.2f}"


def accuracy_table(rows: list[dict[str, Any]], claimed: dict[str, Any]) -> str:
    """Accuracies beside ``claimed[dataset][optimizer]``, in Markdown.

    Of each claim the first two numbers are shown, the accuracy and its ±; nothing where
    the paper makes none. Digits stands in for MNIST.
    """
    lines = []
    for row in rows:
        dataset = "mnist" if row["dataset"] == "digits" else row["dataset"]
        theirs = claimed[dataset].get(FORMS[row["form"]].paper)
        measured = "accuracy" in row
        lines.append(
            [
                row["dataset"],
                FORMS[row["form"]].label,
                f"{theirs[0]} ± {theirs[1]}" if theirs else "",
                interval(row) if measured else "",
                row["protocol"] if measured else row["missing"],
            ]
        )
    paper, ours = "paper: accuracy, %", "ours, 95 % interval"
    return table(("dataset", "optimizer", paper, ours, "protocol"), lines)


def section(content: dict[str, Any]) -> Section:
    """The table beside the paper's, and whether QIASO leads."""
    body = accuracy_table(content["rows"], PAPER)
    return Section("Table 3: modern optimizers", body, verdicts(content))


def verdicts(content: dict[str, Any]) -> list[Verdict]:
    """Per dataset: whether a form without gradients leads AdamW, Lion and Sophia."""
    result = []
    for dataset in dict.fromkeys(row["dataset"] for row in content["rows"]):
        rows = {
            row["form"]: row
            for row in content["rows"]
            if row["dataset"] == dataset and "accuracy" in row
        }
        means = {f: sum(r["accuracy"]) / len(r["accuracy"]) for f, r in rows.items()}
        rivals = {f: means[f] for f in BASELINES if f in means}
        for forms, name in ((QIASO[:3], "gradient-free"), (QIASO[3:], "hybrid")):
            ours = {f: means[f] for f in forms if f in means}
            if not ours or not rivals:
                continue
            best, rival = (
                max(ours, key=ours.__getitem__),
                max(rivals, key=rivals.__getitem__),
            )
            result.append(
                Verdict(
                    f"Table 3: QIASO ({name}) is above or beside AdamW, Lion and "
                    f"Sophia on {dataset}",
                    f"{FORMS[best].label} {ours[best]:.2f} % "
                    f"({rows[best]['protocol']}), {FORMS[rival].label} "
                    f"{rivals[rival]:.2f} % ({rows[rival]['protocol']})",
                    judged(
                        ours[best] >= rivals[rival] - 0.05,
                        best,
                        rows[best]["protocol"],
                    ),
                )
            )
    return result
