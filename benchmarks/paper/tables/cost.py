"""Table 2 and the conclusions: an epoch of QIASO costs within 9 % of Adam's."""

from __future__ import annotations

import dataclasses
from typing import Any

from benchmarks import epoch_cost
from benchmarks.harness.settings import Experiment
from benchmarks.markdown import table
from benchmarks.paper.forms import FORMS
from benchmarks.paper.section import Section, Verdict, judged
from benchmarks.paper.study import Study

CLAIMED = 1.01 / 0.93
GROUPS: dict[str, tuple[int, dict[str, dict[str, Any]]]] = {
    "batches of 128": (128, {"adam": {}, "faithful": {}, "working": {}, "hybrid": {}}),
    "batches of 512": (
        512,
        {"adam": {}, "node": {"examples": 0.25}, "node, all examples": {}},
    ),
}
"""What takes turns in one process; the first is the unit."""


def measure(study: Study) -> dict[str, Any]:
    """Median seconds per epoch of every form, and their ratios to Adam's."""
    limit, rounds = {"smoke": (1_024, 1), "cpu": (12_800, 5), "full": (None, 5)}[
        study.profile
    ]
    rows = []
    for group, (batch_size, entries) in GROUPS.items():
        report = epoch_cost.measured(
            {
                name: _experiment(study, name, batch_size, limit, changes)
                for name, changes in entries.items()
            },
            rounds,
            study.data_dir,
            study.cache_dir,
        )
        rows += [
            {
                "form": name,
                "group": group,
                "seconds": r["seconds"],
                "cpu_seconds": r["cpu_seconds"],
                "ratio": r["ratio"],
                "cpu_ratio": r["cpu_ratio"],
                "examples": r["examples_per_epoch"],
                "sample_forwards": r["sample_forwards"] / r["examples_per_epoch"],
            }
            for name, r in report.items()
        ]
    return {"rows": rows, "rounds": rounds}


def _experiment(
    study: Study,
    name: str,
    batch_size: int,
    limit: int | None,
    changes: dict[str, Any],
) -> Experiment:
    form = name.partition(",")[0]
    if name != form:
        changes = {"examples": 1.0}
    experiment = study.experiment(study.mnist, form)
    return dataclasses.replace(
        experiment, batch_size=batch_size, limit=limit, seeds=1, epochs=1, **changes
    )


def label(name: str) -> str:
    """What a row is called."""
    form, comma, rest = name.partition(",")
    return FORMS[form].label + comma + rest


def section(content: dict[str, Any]) -> Section:
    """Seconds and ratios."""
    body = (
        table(
            (
                "form",
                "minibatches",
                "s per epoch of 60,000",
                "ratio to Adam",
                "in CPU time",
                "sample-forwards per example",
            ),
            [
                [
                    label(row["form"]),
                    row["group"],
                    f"{row['seconds'] * 60_000 / row['examples']:.2f}",
                    f"{row['ratio']:.2f}",
                    f"{row['cpu_ratio']:.2f}",
                    f"{row['sample_forwards']:.3g}",
                ]
                for row in content["rows"]
            ],
        )
        + f"\nOne process, in turns, medians of {content['rounds']} epochs, the "
        "paper's MLP, K = 30. A gradient counts as three sample-forwards.\n"
    )
    return Section("Cost of an epoch beside Adam's", body, verdicts(content))


def verdicts(content: dict[str, Any]) -> list[Verdict]:
    """One for each form of QIASO."""
    return [
        Verdict(
            f"Table 2: an epoch costs {100 * (CLAIMED - 1):.0f} % more than Adam's "
            f"({label(row['form'])})",
            f"{row['ratio']:.2f} times Adam's",
            judged(row["ratio"] <= CLAIMED, row["form"]),
        )
        for row in content["rows"]
        if row["form"] != "adam"
    ]
