"""Table 3: AdamW, Lion and Sophia against QIASO, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from benchmarks.paper.columns import label
from benchmarks.paper.forms import QIASO
from benchmarks.paper.section import Section, Verdict, judged
from benchmarks.paper.study import Study
from benchmarks.paper.tables.accuracies import accuracies, accuracy_table

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
    return {"rows": accuracies(study, (*BASELINES, *QIASO), study.datasets)}


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
        rival = best(rows, BASELINES)
        for forms, name in ((QIASO[:3], "gradient-free"), (QIASO[3:], "hybrid")):
            ours = best(rows, forms)
            if ours and rival:
                leads = np.mean(ours["accuracy"]) >= np.mean(rival["accuracy"]) - 0.05
                result.append(
                    Verdict(
                        f"Table 3: QIASO ({name}) is above or beside AdamW, Lion and "
                        f"Sophia on {dataset}",
                        f"{described(ours)}, {described(rival)}",
                        judged(bool(leads), ours["form"], ours["protocol"]),
                    )
                )
    return result


def best(
    rows: dict[str, dict[str, Any]], forms: Iterable[str]
) -> dict[str, Any] | None:
    """The row of the highest mean among ``forms``, if there is one."""
    some = [rows[form] for form in forms if form in rows]
    return max(some, key=lambda row: np.mean(row["accuracy"]), default=None)


def described(row: dict[str, Any]) -> str:
    """A row in words."""
    return f"{label(row)} {np.mean(row['accuracy']):.2f} % ({row['protocol']})"
