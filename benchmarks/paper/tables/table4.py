"""Table 4: ten seeds, 95 % intervals, Welch's t-test against each baseline."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.markdown import table
from benchmarks.paper import statistics
from benchmarks.paper.columns import Cell, Row, label, tabulated
from benchmarks.paper.forms import FORMS, QIASO, recipes
from benchmarks.paper.section import Section, Verdict, judged, reproduced
from benchmarks.paper.study import Study
from benchmarks.paper.tables.accuracies import accuracies, accuracy_table

BASELINES = ("adam", "sgd", "rmsprop")
RUNS = 10
PAPER = {
    "mnist": {
        "qiaso": (98.74, 0.08, None),
        "adam": (98.21, 0.11, 0.013),
        "sgd": (97.84, 0.15, 0.009),
        "rmsprop": (98.07, 0.13, 0.017),
    },
    "fashion_mnist": {
        "qiaso": (92.31, 0.19, None),
        "adam": (91.02, 0.25, 0.021),
        "sgd": (89.87, 0.28, 0.008),
        "rmsprop": (90.41, 0.31, 0.016),
    },
    "cifar10": {
        "qiaso": (76.84, 0.34, None),
        "adam": (74.92, 0.41, 0.028),
        "sgd": (72.14, 0.47, 0.004),
        "rmsprop": (73.51, 0.44, 0.011),
    },
}
"""Accuracy in %, half of its 95 % interval, and p of Welch's test against QIASO."""


def measure(study: Study) -> dict[str, Any]:
    """Accuracies of all seeds for every dataset and optimizer."""
    rows = accuracies(study, (*BASELINES, *QIASO), study.datasets)
    for dataset in study.datasets:
        rows += accuracies(study, recipes(dataset), (dataset,))
    return {"rows": rows}


def comparisons(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """For each dataset and form of QIASO, its comparisons with the baselines."""
    measured = {(row["dataset"], row["form"]): row for row in rows if "accuracy" in row}
    result = []
    for dataset in dict.fromkeys(dataset for dataset, _ in measured):
        rivals = [measured[dataset, b] for b in BASELINES if (dataset, b) in measured]
        if rivals:
            result += [
                compared(measured[dataset, form], rivals)
                for form in QIASO
                if (dataset, form) in measured
            ]
    return result


def compared(row: Row, rivals: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One form against each of its baselines, with Holm's p over these."""
    ours = np.array(row["accuracy"])
    theirs = [np.array(rival["accuracy"]) for rival in rivals]
    raw = [statistics.welch(ours, values) for values in theirs]
    return [
        {
            **row,
            "baseline": FORMS[rival["form"]].label,
            "unequal": unequal(row["protocol"], rival["protocol"]),
            "difference": ours.mean() - values.mean(),
            "effect": statistics.hedges_g(ours, values),
            "p": p,
            "holm": corrected,
        }
        for rival, values, p, corrected in zip(
            rivals, theirs, raw, statistics.holm(raw), strict=True
        )
    ]


def unequal(ours: str, theirs: str) -> str:
    """The two protocols, where they are not the same."""
    return "" if ours == theirs else f"{ours} against {theirs}"


def implied(dataset: str, baseline: str) -> float:
    """The p that the paper's own means and intervals give."""
    mean, half, _ = PAPER[dataset]["qiaso"]
    theirs, their_half, _ = PAPER[dataset][baseline]
    return statistics.welch_from_intervals(mean, half, theirs, their_half, RUNS)


def section(content: dict[str, Any]) -> Section:
    """Accuracies, tests, and the p-values that the paper's own figures imply."""
    tests = tabulated(
        [test for tests in comparisons(content["rows"]) for test in tests],
        ("form", label),
        ("dataset", "{dataset}"),
        ("against", "{baseline}"),
        ("points", "{difference:+.2f}"),
        ("p (Holm)", number("holm", ".1e")),
        ("p", number("p", ".1e")),
        ("g", number("effect", "+.1f")),
        ("unequal protocols", "{unequal}"),
    )
    printed = [
        [dataset, FORMS[b].label, PAPER[dataset][b][2], f"{implied(dataset, b):.0e}"]
        for dataset in PAPER
        for b in BASELINES
    ]
    parts = (
        accuracy_table(content["rows"], PAPER),
        "### Tests\n",
        "Each form against each baseline: difference of means in points, Hedges' "
        "g, p of Welch's test, and the same after Holm's correction for the three "
        "baselines. A dash stands where one seed allows no test. Under unequal "
        "protocols the test compares the protocols as well.\n",
        tests,
        "### The printed p-values\n",
        "The paper's own means and intervals, of ten runs each, imply p-values "
        "orders of magnitude below those printed:\n",
        table(("dataset", "against", "printed p", "implied p"), printed),
    )
    return Section("Table 4: significance", "\n".join(parts), verdicts(content))


def number(key: str, form: str) -> Cell:
    """A number of the row, or a dash where there is none."""
    return lambda row: format(row[key], form) if np.isfinite(row[key]) else "–"


def verdicts(content: dict[str, Any]) -> list[Verdict]:
    """On significance, per form and dataset, and on the printed p-values."""
    ratios = [PAPER[d][b][2] / implied(d, b) for d in PAPER for b in BASELINES]
    return [
        *map(significance, comparisons(content["rows"])),
        Verdict(
            "Table 4: p between 0.004 and 0.028",
            "the printed means and intervals imply p smaller by factors of "
            f"{min(ratios):.0e} to {max(ratios):.0e}",
            reproduced(min(ratios) <= 10, "contradictory"),
        ),
    ]


def significance(tests: list[dict[str, Any]]) -> Verdict:
    """Whether one form wins significantly against all of its baselines."""
    first = tests[0]
    points = ", ".join(f"{t['difference']:+.2f} on {t['baseline']}" for t in tests)
    unequal = sorted({t["unequal"] for t in tests} - {""})
    found = points + (f" ({'; '.join(unequal)})" if unequal else "")
    wins = [t["difference"] > 0 for t in tests]
    if tested := all(np.isfinite(t["p"]) for t in tests):
        wins = [win and t["holm"] < 0.05 for win, t in zip(wins, tests, strict=True)]
        found += f"; {sum(wins)} of {len(wins)} significant wins (Holm)"
    else:
        found += "; one seed, no test"
    word = judged(all(wins), first["form"], first["protocol"])
    return Verdict(
        f"Table 4: QIASO beats Adam, SGD and RMSprop on {first['dataset']} at "
        f"p < 0.05 ({label(first)})",
        found,
        word if tested or not all(wins) else "not measured",
    )
