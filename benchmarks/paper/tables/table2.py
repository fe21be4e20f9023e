"""Table 2: accuracy, final loss and seconds per epoch on three datasets."""

from __future__ import annotations

from typing import Any

from benchmarks.paper.columns import Row, by_dataset, label, ours, protocol
from benchmarks.paper.forms import FORMS, QIASO, recipes
from benchmarks.paper.runs import Run
from benchmarks.paper.section import Section, Verdict, judged
from benchmarks.paper.study import Study

PAPER = {
    ("mnist", "sgd"): (98.1, 0.044, 0.81),
    ("mnist", "adam"): (98.4, 0.036, 0.93),
    ("mnist", "qiaso"): (98.9, 0.028, 1.01),
    ("cifar10", "adam"): (86.7, 0.43, 2.50),
    ("cifar10", "qiaso"): (89.3, 0.35, 2.80),
    ("fashion_mnist", "rmsprop"): (88.2, 0.32, 1.80),
    ("fashion_mnist", "qiaso"): (90.1, 0.27, 2.00),
}
"""Accuracy in %, final loss, seconds per epoch."""
BASELINES = {
    "mnist": ("sgd", "adam"),
    "digits": ("sgd", "adam"),
    "cifar10": ("adam",),
    "fashion_mnist": ("rmsprop",),
}


def measure(study: Study) -> dict[str, Any]:
    """One row for each dataset and optimizer of the table, QIASO in four forms."""
    rows = [
        study.row(dataset, form, kept)
        for dataset in study.datasets
        for form in (*BASELINES[dataset], *QIASO, *recipes(dataset))
    ]
    return {"rows": rows}


def kept(run: Run) -> dict[str, float]:
    """Means over seeds, and seconds of one of them."""
    return {
        "accuracy": 100 * run.final("test_accuracy").mean(),
        "loss": run.final("train_loss").mean(),
        "seconds": run.seconds_per_epoch / run.protocol.seeds,
    }


def section(content: dict[str, Any]) -> Section:
    """The table beside the paper's."""
    body = by_dataset(
        content["rows"],
        ("optimizer", label),
        ("paper: accuracy, %", lambda row: claimed(row)[0]),
        ("ours", ours("{accuracy:.2f}")),
        ("protocol", protocol),
        ("paper: final loss", lambda row: claimed(row)[1]),
        ("ours (training)", ours("{loss:.4f}")),
        ("paper: s per epoch", lambda row: claimed(row)[2]),
        ("ours, per seed", ours("{seconds:.2f}")),
    )
    body += (
        "\nOur seconds are of an epoch of the examples named in the protocol, on the "
        "machine above, with all seeds trained side by side and divided by their "
        "number; the paper's are of an RTX 3090. `cost` compares them under equal "
        "conditions.\n"
    )
    return Section("Table 2: accuracy, loss and time", body, verdicts(content))


def claimed(row: Row) -> tuple[object, object, object]:
    """The paper's figures for a row, if it has any; digits stands in for MNIST."""
    dataset = "mnist" if row["dataset"] == "digits" else row["dataset"]
    return PAPER.get((dataset, FORMS[row["form"]].paper), ("", "", ""))


def verdicts(content: dict[str, Any]) -> list[Verdict]:
    """One for each form of QIASO and dataset."""
    return [
        verdict(row) for row in content["rows"] if FORMS[row["form"]].paper == "qiaso"
    ]


def verdict(row: Row) -> Verdict:
    """Whether one form reaches the paper's accuracy."""
    target: Any = claimed(row)[0]
    claim = f"Table 2: QIASO reaches {target} % on {row['dataset']} ({label(row)})"
    if "missing" in row:
        return Verdict(claim, row["missing"], "not measured")
    return Verdict(
        claim,
        f"{row['accuracy']:.2f} % ({row['protocol']})",
        judged(row["accuracy"] >= target - 0.1, row["form"], row["protocol"]),
    )
