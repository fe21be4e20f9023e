"""Final accuracies of all seeds, as Tables 3 and 4 and Figure 7 show them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from benchmarks.paper import statistics
from benchmarks.paper.columns import Row, by_dataset, label, ours, protocol
from benchmarks.paper.forms import FORMS
from benchmarks.paper.runs import Run
from benchmarks.paper.study import Study


def accuracies(
    study: Study, forms: Iterable[str], datasets: Iterable[str]
) -> list[dict[str, Any]]:
    """One row for each dataset and form: the final accuracies in %, or what misses."""
    return [study.row(dataset, form, kept) for dataset in datasets for form in forms]


def kept(run: Run) -> dict[str, Any]:
    """The final accuracies in %."""
    return {"accuracy": 100 * run.final("test_accuracy")}


def accuracy_table(rows: list[dict[str, Any]], claimed: dict[str, Any]) -> str:
    """Accuracies beside ``claimed[dataset][optimizer]``, a table for each dataset.

    Of each claim the first two numbers are shown, the accuracy and its ±; nothing where
    the paper makes none. Digits stands in for MNIST.
    """

    def paper(row: Row) -> str:
        dataset = "mnist" if row["dataset"] == "digits" else row["dataset"]
        theirs = claimed[dataset].get(FORMS[row["form"]].paper)
        return f"{theirs[0]} ± {theirs[1]}" if theirs else ""

    return by_dataset(
        rows,
        ("optimizer", label),
        ("paper: accuracy, %", paper),
        ("ours, 95 % interval", ours(interval)),
        ("protocol", protocol),
    )


def interval(row: Row) -> str:
    """Mean ± half of the 95 % interval."""
    values = np.array(row["accuracy"])
    half = f" ± {statistics.half_width(values):.2f}" if len(values) > 1 else ""
    return f"{values.mean():.2f}{half}"
