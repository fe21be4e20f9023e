"""Table 2 and the conclusions: an epoch of QIASO costs within 9 % of Adam's."""

from __future__ import annotations

import dataclasses
from typing import Any

from benchmarks import epoch_cost
from benchmarks.paper import columns
from benchmarks.paper.columns import Row, tabulated
from benchmarks.paper.section import Section, Verdict, judged
from benchmarks.paper.study import Study

CLAIMED = 1.01 / 0.93
GROUPS: dict[str, tuple[int, dict[str, dict[str, Any]]]] = {
    "batches of 128": (128, {"adam": {}, "faithful": {}, "working": {}, "hybrid": {}}),
    "batches of 512": (
        512,
        {
            "adam": {},
            "node": {"examples": 0.25},
            "node, all examples": {"examples": 1.0},
        },
    ),
}
"""What takes turns in one process, with changes to settings; the first is the unit."""


def measure(study: Study) -> dict[str, Any]:
    """Median seconds per epoch of every form, and their ratios to Adam's."""
    limit, rounds = {"smoke": (1_024, 1), "cpu": (12_800, 5), "full": (None, 5)}[
        study.profile
    ]
    rows = []
    for group, (batch_size, entries) in GROUPS.items():
        experiments = {
            name: dataclasses.replace(
                study.experiment(study.mnist, name.partition(",")[0]),
                batch_size=batch_size,
                limit=limit,
                seeds=1,
                epochs=1,
                **changes,
            )
            for name, changes in entries.items()
        }
        report = epoch_cost.measured(
            experiments, rounds, study.data_dir, study.cache_dir
        )
        rows += [
            {
                "form": name,
                "group": group,
                **{k: row[k] for k in ("seconds", "cpu_seconds", "ratio", "cpu_ratio")},
                "examples": row["examples_per_epoch"],
                "sample_forwards": row["sample_forwards"] / row["examples_per_epoch"],
            }
            for name, row in report.items()
        ]
    return {"rows": rows, "rounds": rounds}


def label(row: Row) -> str:
    """What a row is called."""
    form, comma, rest = row["form"].partition(",")
    return columns.label({"form": form}) + comma + rest


def seconds(row: Row) -> str:
    """Per epoch of 60,000 examples."""
    return f"{row['seconds'] * 60_000 / row['examples']:.2f}"


def section(content: dict[str, Any]) -> Section:
    """Seconds and ratios."""
    body = tabulated(
        content["rows"],
        ("form", label),
        ("minibatches", "{group}"),
        ("s per epoch of 60,000", seconds),
        ("ratio to Adam", "{ratio:.2f}"),
        ("in CPU time", "{cpu_ratio:.2f}"),
        ("sample-forwards per example", "{sample_forwards:.3g}"),
    )
    body += (
        f"\nOne process, in turns, medians of {content['rounds']} epochs, the "
        "paper's MLP, K = 30. A gradient counts as three sample-forwards.\n"
    )
    return Section("Cost of an epoch beside Adam's", body, verdicts(content))


def verdicts(content: dict[str, Any]) -> list[Verdict]:
    """One for each form of QIASO."""
    return [
        Verdict(
            f"Table 2: an epoch costs {100 * (CLAIMED - 1):.0f} % more than Adam's "
            f"({label(row)})",
            f"{row['ratio']:.2f} times Adam's",
            judged(row["ratio"] <= CLAIMED, row["form"]),
        )
        for row in content["rows"]
        if row["form"] != "adam"
    ]
