"""Table 4: ten seeds, 95 % intervals, Welch's t-test against each baseline."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.markdown import table
from benchmarks.paper import statistics
from benchmarks.paper.forms import FORMS, QIASO, recipes
from benchmarks.paper.section import Section, Verdict, judged
from benchmarks.paper.study import Study
from benchmarks.paper.tables.table3 import accuracies, accuracy_table

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
    rows = accuracies(study, (*BASELINES, *QIASO))
    for dataset in study.datasets:
        rows += accuracies(study, recipes(dataset), (dataset,))
    return {"rows": rows}


def comparisons(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each form of QIASO against each baseline of its dataset, with Holm's p.

    The correction is over the three baselines of one form and dataset.
    """
    rows = [row for row in rows if "accuracy" in row]
    keys = [(row["dataset"], row["form"]) for row in rows]
    measured = {k: np.array(r["accuracy"]) for k, r in zip(keys, rows, strict=True)}
    protocols = {k: row["protocol"] for k, row in zip(keys, rows, strict=True)}
    result = []
    for dataset in dict.fromkeys(dataset for dataset, _ in measured):
        for form in QIASO:
            rivals = [b for b in BASELINES if (dataset, b) in measured]
            if (dataset, form) not in measured or not rivals:
                continue
            ours = measured[dataset, form]
            raw = [statistics.welch(ours, measured[dataset, b]) for b in rivals]
            for rival, p, corrected in zip(
                rivals, raw, statistics.holm(raw), strict=True
            ):
                theirs = measured[dataset, rival]
                result.append(
                    {
                        "dataset": dataset,
                        "form": form,
                        "baseline": rival,
                        "protocols": (
                            protocols[dataset, form],
                            protocols[dataset, rival],
                        ),
                        "difference": float(ours.mean() - theirs.mean()),
                        "effect": statistics.hedges_g(ours, theirs),
                        "p": p,
                        "holm": corrected,
                    }
                )
    return result


def implied(dataset: str, baseline: str) -> float:
    """The p that the paper's own means and intervals give."""
    mean, half, _ = PAPER[dataset]["qiaso"]
    theirs, their_half, _ = PAPER[dataset][baseline]
    return statistics.welch_from_intervals(mean, half, theirs, their_half, RUNS)


def section(content: dict[str, Any]) -> Section:
    """Accuracies, tests, and the p-values that the paper's own figures imply."""
    tests = [
        [
            c["dataset"],
            FORMS[c["form"]].label,
            FORMS[c["baseline"]].label,
            f"{c['difference']:+.2f}",
            number(c["effect"], "+.1f"),
            number(c["p"], ".1e"),
            number(c["holm"], ".1e"),
            unequal(c["protocols"]),
        ]
        for c in comparisons(content["rows"])
    ]
    printed = [
        [dataset, FORMS[b].label, PAPER[dataset][b][2], f"{implied(dataset, b):.0e}"]
        for dataset in PAPER
        for b in BASELINES
    ]
    body = "\n".join(
        (
            accuracy_table(content["rows"], PAPER),
            "Each form against each baseline: difference of means in points, Hedges' "
            "g, p of Welch's test, and the same after Holm's correction for the three "
            "baselines. A dash stands where one seed allows no test. Under unequal "
            "protocols the test compares the protocols as well.\n",
            table(
                (
                    "dataset",
                    "form",
                    "against",
                    "points",
                    "g",
                    "p",
                    "p (Holm)",
                    "unequal protocols",
                ),
                tests,
            ),
            "The paper's own means and intervals, of ten runs each, imply p-values "
            "orders of magnitude below those printed:\n",
            table(("dataset", "against", "printed p", "implied p"), printed),
        )
    )
    return Section("Table 4: significance", body, verdicts(content))


def unequal(protocols: tuple[str, str]) -> str:
    """The two protocols, where they are not the same."""
    ours, theirs = protocols
    return "" if ours == theirs else f"{ours} against {theirs}"


def number(value: float, form: str) -> str:
    """A number, or a dash where there is none."""
    return format(value, form) if np.isfinite(value) else "–"


def verdicts(content: dict[str, Any]) -> list[Verdict]:
    """On significance, per form and dataset, and on the printed p-values."""
    found = comparisons(content["rows"])
    result = []
    for dataset, form in dict.fromkeys((c["dataset"], c["form"]) for c in found):
        of_form = [c for c in found if (c["dataset"], c["form"]) == (dataset, form)]
        claim = (
            f"Table 4: QIASO beats Adam, SGD and RMSprop on {dataset} at p < 0.05 "
            f"({FORMS[form].label})"
        )
        differences = ", ".join(
            f"{c['difference']:+.2f} on {FORMS[c['baseline']].label}" for c in of_form
        )
        differing = {unequal(c["protocols"]) for c in of_form} - {""}
        if differing:
            differences += f" ({'; '.join(sorted(differing))})"
        protocol, _ = of_form[0]["protocols"]
        if any(not np.isfinite(c["p"]) for c in of_form):
            wins = all(c["difference"] > 0 for c in of_form)
            word = "not measured" if wins else judged(False, form, protocol)
            result.append(Verdict(claim, f"{differences}; one seed, no test", word))
            continue
        wins = sum(c["difference"] > 0 and c["holm"] < 0.05 for c in of_form)
        result.append(
            Verdict(
                claim,
                f"{differences}; {wins} of {len(of_form)} significant wins (Holm)",
                judged(wins == len(of_form), form, protocol),
            )
        )
    pairs = [(d, b) for d in PAPER for b in BASELINES]
    ratios = [PAPER[d][b][2] / implied(d, b) for d, b in pairs]
    result.append(
        Verdict(
            "Table 4: p between 0.004 and 0.028",
            "the printed means and intervals imply p smaller by factors of "
            f"{min(ratios):.0e} to {max(ratios):.0e}",
            "contradictory" if min(ratios) > 10 else "reproduced",
        )
    )
    return result
