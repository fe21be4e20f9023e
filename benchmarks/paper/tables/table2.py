"""Table 2: accuracy, final loss and seconds per epoch on three datasets."""

from __future__ import annotations

from typing import Any

from benchmarks.markdown import table
from benchmarks.paper.forms import FORMS, QIASO, recipes
from benchmarks.paper.section import Section, Verdict, judged
from benchmarks.paper.study import Study, missing

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
    rows = []
    for dataset in study.datasets:
        for form in (*BASELINES[dataset], *QIASO, *recipes(dataset)):
            run = study.run(dataset, form)
            row: dict[str, Any] = {"dataset": dataset, "form": form}
            if run is None:
                rows.append(row | {"missing": missing(study, dataset, form)})
                continue
            seeds = run.protocol.seeds
            rows.append(
                row
                | {
                    "protocol": str(run.protocol),
                    "accuracy": 100 * float(run.final("test_accuracy").mean()),
                    "loss": float(run.final("train_loss").mean()),
                    "seconds": run.seconds_per_epoch / seeds,
                }
            )
    return {"rows": rows}


def section(content: dict[str, Any]) -> Section:
    """The table beside the paper's."""
    lines = []
    for row in content["rows"]:
        accuracy, loss, seconds = claimed(row["dataset"], row["form"]) or ("",) * 3
        measured = "accuracy" in row
        lines.append(
            [
                row["dataset"],
                FORMS[row["form"]].label,
                accuracy,
                f"{row['accuracy']:.2f}" if measured else "",
                loss,
                f"{row['loss']:.4f}" if measured else "",
                seconds,
                f"{row['seconds']:.2f}" if measured else "",
                row["protocol"] if measured else row["missing"],
            ]
        )
    body = (
        table(
            (
                "dataset",
                "optimizer",
                "paper: accuracy, %",
                "ours",
                "paper: final loss",
                "ours (training)",
                "paper: s per epoch",
                "ours, per seed",
                "protocol",
            ),
            lines,
        )
        + "\nOur seconds are of an epoch of the examples named in the protocol, on the "
        "machine above, with all seeds trained side by side and divided by their "
        "number; the paper's are of an RTX 3090. `cost` compares them under equal "
        "conditions.\n"
    )
    return Section("Table 2: accuracy, loss and time", body, verdicts(content))


def claimed(dataset: str, form: str) -> tuple[float, float, float] | None:
    """The paper's figures for a row, if it has any; digits stands in for MNIST."""
    return PAPER.get(("mnist" if dataset == "digits" else dataset, FORMS[form].paper))


def verdicts(content: dict[str, Any]) -> list[Verdict]:
    """One for each form and dataset."""
    result = []
    for row in content["rows"]:
        figures = claimed(row["dataset"], row["form"])
        if FORMS[row["form"]].paper != "qiaso" or figures is None:
            continue
        target = figures[0]
        label = FORMS[row["form"]].label
        claim = f"Table 2: QIASO reaches {target} % on {row['dataset']} ({label})"
        if "accuracy" not in row:
            result.append(Verdict(claim, row["missing"], "not measured"))
            continue
        result.append(
            Verdict(
                claim,
                f"{row['accuracy']:.2f} % ({row['protocol']})",
                judged(row["accuracy"] >= target - 0.1, row["form"], row["protocol"]),
            )
        )
    return result
