"""Table 6: the ablation; accuracy and relative convergence rate of each variant."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.markdown import table
from benchmarks.paper.section import Section, Verdict, judged
from benchmarks.paper.study import Run, Study, missing

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
    rows = []
    for variant, (_, changes) in VARIANTS.items():
        run = study.run(study.mnist, "faithful", **changes)
        if run is None:
            missed = missing(study, study.mnist, "faithful")
            rows.append({"variant": variant, "missing": missed})
            continue
        loss = run.curves["test_loss"].mean(axis=1)
        rows.append(
            {
                "variant": variant,
                "protocol": str(run.protocol),
                "accuracy": (100 * run.final("test_accuracy")).tolist(),
                "curve": loss.tolist(),
                "rises": rises(run),
            }
        )
    return {"rows": rows}


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
    measured = {row["variant"]: row for row in content["rows"] if "accuracy" in row}
    lines = []
    for row in content["rows"]:
        name = row["variant"]
        accuracy, rate = PAPER[name]
        cells: list[object] = [VARIANTS[name][0], accuracy]
        if name in measured:
            ours = None
            if "full" in measured:
                ours = relative_rate(
                    np.array(measured["full"]["curve"]), np.array(row["curve"])
                )
            cells += [
                f"{np.mean(row['accuracy']):.2f}",
                rate,
                "–" if ours is None else f"{ours:.2f}",
                f"{row['curve'][0]:.2f} → {row['curve'][-1]:.2f}",
                f"{100 * row['rises']:.0f} %",
                row["protocol"],
            ]
        else:
            cells += ["", rate, "", "", "", row["missing"]]
        lines.append(cells)
    body = (
        table(
            (
                "variant",
                "paper: accuracy, %",
                "ours",
                "paper: relative rate",
                "ours",
                "test loss, first → last epoch",
                "epochs with a rise",
                "protocol",
            ),
            lines,
        )
        + "\n"
        + NOTE
    )
    return Section("Table 6: ablation", body, verdicts(content))


def verdicts(content: dict[str, Any]) -> list[Verdict]:
    """Whether each mechanism adds what the paper says."""
    mean = {
        row["variant"]: float(np.mean(row["accuracy"]))
        for row in content["rows"]
        if "accuracy" in row
    }
    result = []
    if "full" not in mean:
        return result
    protocol = next(r["protocol"] for r in content["rows"] if r["variant"] == "full")
    for name in ("superposition", "kl", "tunnelling"):
        if name in mean:
            gain = mean["full"] - mean[name]
            claimed = PAPER["full"][0] - PAPER[name][0]
            result.append(
                Verdict(
                    f"Table 6: {VARIANTS[name][0]} costs {claimed:.1f} points of 98.9",
                    f"{gain:+.1f} points of {mean['full']:.1f} % (faithful, "
                    f"{protocol})",
                    judged(gain > 0 and mean["full"] > 98, "faithful", protocol),
                )
            )
    return result
