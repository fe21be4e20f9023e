"""Table 6: the ablation; accuracy and relative convergence rate of each variant."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.paper.columns import Row, ours, protocol, tabulated
from benchmarks.paper.runs import Run
from benchmarks.paper.section import Section, Verdict, judged
from benchmarks.paper.study import Study

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("Full QIASO", {}),
    "superposition": ("w/o superposition", {"without": "superposition"}),
    "pair": ("w/o superposition, two candidates", {"candidates": 2}),
    "kl": ("w/o KL regularisation", {"without": "kl"}),
    "tunnelling": ("w/o perturbation", {"without": "tunnelling"}),
}
PAPER = {
    "full": (98.9, 1.00),
    "superposition": (97.2, 0.60),
    "pair": (97.2, 0.60),
    "kl": (97.9, 0.75),
    "tunnelling": (98.1, 0.80),
}
"""Accuracy in %, relative convergence rate."""
NOTE = """\
The faithful form on MNIST. The relative rate is epochs to the lowest test loss that
both reach, full over variant; a dash where that is not below the first epoch's. With
one candidate nothing can ever move: it is the centre, the collapse is to itself, and
the most probable candidate does not tunnel; two candidates are the least that can. In
the working form and in node space the superposition starts from uniform amplitudes in
every step, so there the KL term changes nothing (its prior is the uniform one), and
neither tunnels.
"""


def measure(study: Study) -> dict[str, Any]:
    """Curves of the faithful form and of its variants, under the same protocol."""
    rows = [
        {"variant": variant} | study.row(study.mnist, "faithful", kept, **changes)
        for variant, (_, changes) in VARIANTS.items()
    ]
    return {"rows": rows}


def kept(run: Run) -> dict[str, Any]:
    """Accuracies, the mean curve of the test loss, and how often it rises."""
    return {
        "accuracy": 100 * run.final("test_accuracy"),
        "curve": run.curves["test_loss"].mean(axis=1),
        "rises": rises(run),
    }


def rises(run: Run) -> float:
    """The fraction of epochs after which the test loss is higher than before."""
    steps = np.diff(run.curves["test_loss"], axis=0)
    return float(np.mean(steps > 0)) if steps.size else 0.0


def relative_rate(full: np.ndarray, variant: np.ndarray) -> float | None:
    """Epochs of the full form over epochs of the variant, to a common loss.

    The common loss is the greater of the two lowest; None where it is no lower than
    that of the first epoch, and so nothing has converged.
    """
    common = max(full.min(), variant.min())
    if common >= min(full[0], variant[0]):
        return None
    return float((1 + np.argmax(full <= common)) / (1 + np.argmax(variant <= common)))


def section(content: dict[str, Any]) -> Section:
    """The table beside the paper's."""
    full = {r["variant"]: r["curve"] for r in content["rows"] if "curve" in r}.get(
        "full"
    )

    def rate(row: Row) -> str:
        if full is None:
            return "–"
        rate = relative_rate(np.array(full), np.array(row["curve"]))
        return "–" if rate is None else f"{rate:.2f}"

    body = tabulated(
        content["rows"],
        ("variant", lambda row: VARIANTS[row["variant"]][0]),
        ("paper: accuracy, %", lambda row: PAPER[row["variant"]][0]),
        ("ours", ours(lambda row: f"{np.mean(row['accuracy']):.2f}")),
        ("protocol", protocol),
        ("paper: relative rate", lambda row: PAPER[row["variant"]][1]),
        ("ours", ours(rate)),
        ("test loss, first → last epoch", ours(first_to_last)),
        ("epochs with a rise", ours(lambda row: f"{100 * row['rises']:.0f} %")),
    )
    return Section("Table 6: ablation", f"{body}\n{NOTE}", verdicts(content))


def first_to_last(row: Row) -> str:
    """The ends of the curve."""
    return f"{row['curve'][0]:.2f} → {row['curve'][-1]:.2f}"


def verdicts(content: dict[str, Any]) -> list[Verdict]:
    """Whether each mechanism adds what the paper says."""
    rows = {row["variant"]: row for row in content["rows"] if "accuracy" in row}
    if "full" not in rows:
        return []
    return [
        contribution(rows["full"], rows[name])
        for name in ("superposition", "kl", "tunnelling")
        if name in rows
    ]


def contribution(full: Row, variant: Row) -> Verdict:
    """What one mechanism adds to the full form."""
    mean = float(np.mean(full["accuracy"]))
    gain = mean - float(np.mean(variant["accuracy"]))
    name = variant["variant"]
    claimed = PAPER["full"][0] - PAPER[name][0]
    return Verdict(
        f"Table 6: {VARIANTS[name][0]} costs {claimed:.1f} points of 98.9",
        f"{gain:+.1f} points of {mean:.1f} % (faithful, {full['protocol']})",
        judged(gain > 0 and mean > 98, "faithful", full["protocol"]),
    )
