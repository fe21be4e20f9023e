"""Runs of the training harness as they are stored, and numbers as they are kept."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.harness import records
from benchmarks.harness.settings import Experiment, from_stored

CURVES = ("train_loss", "test_loss", "test_accuracy")
DIGITS = 5
"""Significant digits of the numbers kept."""


class Protocol(NamedTuple):
    """How long, how often and on how much data a row is trained."""

    epochs: int
    seeds: int
    limit: int | None = None

    def __str__(self) -> str:
        def of(number: int, what: str) -> str:
            return f"{number} {what}" + ("" if number == 1 else "s")

        on = "" if self.limit is None else f", {self.limit:,} examples"
        return f"{of(self.epochs, 'epoch')}, {of(self.seeds, 'seed')}{on}"


class Run(NamedTuple):
    """What a run of the harness left: its settings and ``[epochs, seeds]`` curves."""

    experiment: dict[str, Any]
    curves: dict[str, np.ndarray]
    seconds_per_epoch: float
    sample_forwards: float

    @property
    def protocol(self) -> Protocol:
        """As it was really trained."""
        epochs, seeds = self.curves["test_accuracy"].shape
        return Protocol(epochs, seeds, self.experiment["limit"])

    def final(self, curve: str, seeds: int | None = None) -> np.ndarray:
        """The last epoch's values, one for each of the first ``seeds`` seeds."""
        return self.curves[curve][-1, :seeds]


def packed(folder: Path) -> dict[str, Any]:
    """The output folder of a finished run of ``benchmarks.train`` as one record."""
    history = records.read(folder / "metrics.jsonl")
    content = json.loads((folder / "config.json").read_text())
    del content["experiment"]["data"]
    # The first epoch of a process includes what is only done once.
    seconds = [record["timing"]["seconds"] for record in history]
    return content | {
        "curves": {
            name: [rounded(record[name]) for record in history] for name in CURVES
        },
        "seconds_per_epoch": float(np.median(seconds)),
        "sample_forwards": history[-1]["sample_forwards"],
    }


def rounded(values: Any) -> Any:
    """Numbers, in nested lists or dictionaries, to ``DIGITS`` significant digits."""
    if isinstance(values, dict):
        return {name: rounded(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [rounded(value) for value in values]
    if isinstance(values, np.ndarray):
        return rounded(values.tolist())
    if isinstance(values, float | np.floating):
        return float(f"{values:.{DIGITS}g}")
    return values


def read_run(path: Path) -> Run:
    """Reads what ``packed`` made."""
    content = json.loads(path.read_text())
    return Run(
        experiment=as_stored(from_stored(content["experiment"])),
        curves={name: np.array(values) for name, values in content["curves"].items()},
        seconds_per_epoch=content["seconds_per_epoch"],
        sample_forwards=content["sample_forwards"],
    )


def as_stored(experiment: Experiment) -> dict[str, Any]:
    """The settings as they are read back."""
    return json.loads(json.dumps(dataclasses.asdict(experiment)))
