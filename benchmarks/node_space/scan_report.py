"""The tables of ``python -m benchmarks.node_space.scans``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.markdown import table
from benchmarks.node_space import report, scan_models
from benchmarks.node_space.scan_models import ModelName

NOTES = """\
A GRU of {hidden} units on {inputs} inputs (`lax.scan` over T), one layer of attention
(T = {attention}, D = {width}) and two convolutions, at their random start, on random
inputs with the labels of the same model at other random parameters; minibatch
{batch_size}, K = {candidates}, examples {examples}, all else the defaults of
`node_qiaso`.

- *compile*: seconds to trace, lower and compile one jitted `update`, without the
  persistent cache, in a process that has compiled others before.
- *step*: milliseconds of one compiled update, the median.
- *spaces*: of the kernels, as `node_sites` lists them where `space` is as in the row: a
  parameter for which that is not to be had is in another.
- The column of a kernel has the cosine of one estimate to `jax.grad` of the mean loss,
  mean ± standard error of {steps} estimates on one minibatch, and behind the slash the
  cosine of their mean.
"""

SUMMARY = """\
*auto / best*: the mean over the kernels of the cosines under `space="auto"`, by that
of the best of the other spaces; *lowest*: the least such ratio of one kernel to its
own best space.
"""


class Case(NamedTuple):
    """A model, and the length of its scan, ``None`` where it has none."""

    model: ModelName
    length: int | None

    @property
    def name(self) -> str:
        return self.model if self.length is None else f"{self.model}, T = {self.length}"


def said(row: dict[str, Any]) -> str:
    """A row as progress shows it."""
    if "refused" in row:
        return f"refused: {row['refused']}"
    cosines = ", ".join(
        f"{name} {each['cosine']:.2f}" for name, each in row["kernels"].items()
    )
    return f"{row['seconds']:.1f} s to compile; {cosines}"


def auto_and_best(rows: list[dict[str, Any]], cases: Iterable[Case]) -> list[Any]:
    """What "auto" has of the best space, for each case that has both."""
    found = []
    for case in cases:
        of_spaces = {
            row["space"]: row["kernels"]
            for row in rows
            if Case(row["model"], row["length"]) == case and "kernels" in row
        }
        if "auto" in of_spaces and len(of_spaces) > 1:
            found.append(case._asdict() | _ratios(of_spaces))
    return found


def _ratios(of_spaces: dict[str, dict[str, Any]]) -> dict[str, Any]:
    means, errors = {}, {}
    for space, kernels in of_spaces.items():
        means[space] = float(np.mean([each["cosine"] for each in kernels.values()]))
        # As if the kernels were independent.
        of_kernels = [each["standard_error"] for each in kernels.values()]
        errors[space] = math.hypot(*of_kernels) / len(of_kernels)
    others = [space for space in of_spaces if space != "auto"]
    best = max(others, key=lambda space: means[space])
    ratio = means["auto"] / means[best]
    relative = [errors[space] / means[space] for space in ("auto", best)]
    return {
        "auto": means["auto"],
        "best": means[best],
        "best_space": best,
        "ratio": ratio,
        "standard_error": abs(ratio) * math.hypot(*relative),
        "lowest_ratio": min(
            each["cosine"] / max(of_spaces[space][name]["cosine"] for space in others)
            for name, each in of_spaces["auto"].items()
        ),
    }


def page(command: Any, rows: list[dict[str, Any]], auto: list[Any]) -> str:
    """The tables as Markdown."""
    notes = NOTES.format(
        hidden=scan_models.HIDDEN,
        inputs=scan_models.INPUT,
        attention=scan_models.ATTENTION_LENGTH,
        width=scan_models.ATTENTION_WIDTH,
        examples=report.examples_in_words(command),
        batch_size=command.batch_size,
        candidates=command.candidates,
        steps=command.steps,
    )
    parts = ["# Scans, attention and convolutions", "", notes]
    for model in command.models:
        of_model = [row for row in rows if row["model"] == model]
        named = {f"{row['space']}, T = {row['length']}": row for row in of_model}
        parts += [f"## {model}", "", cosine_table(of_model), report.refusals(named)]
    if auto:
        parts += ['## What "auto" has of the best', "", auto_table(auto), SUMMARY]
    return "\n".join(parts)


def cosine_table(rows: list[dict[str, Any]]) -> str:
    """All rows of one model."""
    names = next((list(row["kernels"]) for row in rows if "kernels" in row), [])
    lines = []
    for row in rows:
        start = [row["length"] or "", row["space"]]
        if "refused" in row:
            lines.append([*start, "", "", "refused", *[""] * len(names)])
            continue
        cosines = [
            f"{each['cosine']:.2f} ± {each['standard_error']:.2f} / "
            f"{each['cosine_of_mean']:.2f}"
            for each in row["kernels"].values()
        ]
        seconds = f"{row['seconds']:.1f}", f"{1000 * row['step_seconds']:.1f}"
        words = report.spaces_in_words(row["spaces"], names)
        lines.append([*start, *seconds, words, *cosines])
    columns = ["T", "space", "compile, s", "step, ms", "spaces", *names]
    return table(columns, lines)


def auto_table(found: list[dict[str, Any]]) -> str:
    """A row per model and length."""
    cells = [
        [
            Case(each["model"], each["length"]).name,
            f"{each['auto']:.3f}",
            f"{each['best']:.3f}",
            each["best_space"],
            f"{each['ratio']:.2f} ± {each['standard_error']:.2f}",
            f"{each['lowest_ratio']:.2f}",
        ]
        for each in found
    ]
    columns = ["model", "auto", "best", "space", "auto / best", "lowest"]
    return table(columns, cells)
