"""A profile, and the runs of the training harness that it affords, each trained once.

A run is kept as ``<results>/<profile>/runs/<name>.json``: its settings, where it was
made, and its curves. Tables share runs: one that is there is not trained again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from rich.console import Console

from benchmarks import train
from benchmarks.cli import UserError
from benchmarks.harness import records
from benchmarks.harness.settings import Command, Experiment, resolved
from benchmarks.paper.forms import (
    CIFAR10_RECIPES,
    CNN,
    CNN_RECIPES,
    FORMS,
    MLP_RECIPES,
    network,
)

ProfileName = Literal["smoke", "cpu", "full"]
RESULTS = Path(__file__).parents[1] / "results" / "paper"
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


FULL = Protocol(100, 10)


def protocol(profile: ProfileName, dataset: str, form: str) -> Protocol:
    """What ``profile`` affords ``form``; more candidates per step afford less.

    ``cpu`` is for two cores: the paper's own protocol for gradients and node space on
    the MLP, and what takes minutes for everything else.
    """
    if profile == "full":
        return FULL
    if profile == "smoke":
        return Protocol(2, 2, 640)
    if network(dataset) == "mlp":
        if form in ("faithful", "working"):
            return Protocol(5, 2)
        if form == "hybrid":
            return Protocol(10, 2)
        return FULL._replace(seeds=3) if form in MLP_RECIPES else FULL
    if form in CIFAR10_RECIPES:
        return Protocol({"hybrid-global": 28, "hybrid-muon": 18}.get(form, 14), 1)
    if form in CNN_RECIPES:
        return Protocol(8 if dataset == "fashion_mnist" else 15, 1)
    if form in ("faithful", "working", "hybrid"):
        return Protocol(1, 1, 2_000)
    return Protocol(5, 1, 10_000)


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


@dataclasses.dataclass(frozen=True)
class Study:
    """Where runs are found and made."""

    profile: ProfileName = "cpu"
    """smoke: a minute, on digits. cpu: hours on two cores. full: as in the paper."""
    results: Path = RESULTS
    """Where measurements lie."""
    work: Path = Path("runs/paper")
    """Where unfinished runs lie; an interrupted one is continued."""
    train: bool = True
    """Train what is missing; otherwise tables say what is not there."""
    data_dir: Path | None = None
    cache_dir: Path | None = None

    @property
    def folder(self) -> Path:
        """Where this profile's results are."""
        return self.results / self.profile

    @property
    def mnist(self) -> str:
        """The dataset that stands for MNIST: in ``smoke``, digits."""
        return "digits" if self.profile == "smoke" else "mnist"

    @property
    def datasets(self) -> tuple[str, ...]:
        """The paper's three, or digits."""
        if self.profile == "smoke":
            return ("digits",)
        return ("mnist", "fashion_mnist", "cifar10")

    def experiment(self, dataset: str, form: str, **changes: Any) -> Experiment:
        """The experiment of one row of a table.

        Nothing is held out: settings were chosen on a validation split before.
        """
        epochs, seeds, limit = protocol(self.profile, dataset, form)
        settings: dict[str, Any] = {
            "dataset": dataset,
            "network": network(dataset),
            "epochs": epochs,
            "seeds": seeds,
            "limit": limit,
            "validation": 0.0,
        }
        settings |= FORMS[form].settings
        if network(dataset) == "cnn":
            settings |= CNN.get(form, {})
        settings |= changes
        if self.profile == "smoke":
            settings |= {"hidden": (16,), "batch_size": 64}
        return resolved(Experiment(**settings))

    def run(self, dataset: str, form: str, **changes: Any) -> Run | None:
        """The run of one row, from the disk or trained now; None where it is missing.

        ``changes`` are settings of the experiment beside those of the form; they
        become part of the run's name.
        """
        experiment = self.experiment(dataset, form, **changes)
        parts = [f"{k}={v}" for k, v in changes.items() if k not in ("seeds", "epochs")]
        name = "-".join([dataset, form, *parts]).replace("_", "-")
        path = self.folder / "runs" / f"{name}.json"
        settings = json.loads(json.dumps(dataclasses.asdict(experiment)))
        if path.exists():
            run = read_run(path)
            if run.experiment == settings:
                return run
            if not self.train:
                raise UserError(
                    f"{path} holds a run with other settings than {self.profile} asks "
                    "for: run the table again without --no-train"
                )
        if not self.train:
            return None
        folder = self.work / self.profile / name
        status = train.run(
            Command(
                experiment,
                output=folder,
                resume=(folder / "config.json").exists(),
                checkpoint_every=10,
                data_dir=self.data_dir,
                cache_dir=self.cache_dir,
            ),
            Console(stderr=True, soft_wrap=True),
        )
        if status:
            raise SystemExit(status)
        path.parent.mkdir(parents=True, exist_ok=True)
        records.write_text(path, json.dumps(packed(folder)) + "\n")
        return read_run(path)

    def row(
        self,
        dataset: str,
        form: str,
        keep: Callable[[Run], dict[str, Any]],
        **changes: Any,
    ) -> dict[str, Any]:
        """A row of a table: what ``keep`` takes from its run, or what is missing."""
        row = {"dataset": dataset, "form": form}
        run = self.run(dataset, form, **changes)
        if run is None:
            e = self.experiment(dataset, form)
            missing = f"not run: {Protocol(e.epochs, e.seeds, e.limit)}"
            return row | {"missing": missing}
        return row | {"protocol": str(run.protocol)} | keep(run)


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
    """Reads what ``packed`` made.

    A setting that came after the run was made is at its default, which changes nothing.
    """
    content = json.loads(path.read_text())
    defaults = json.loads(json.dumps(dataclasses.asdict(Experiment())))
    return Run(
        experiment=defaults | content["experiment"],
        curves={name: np.array(values) for name, values in content["curves"].items()},
        seconds_per_epoch=content["seconds_per_epoch"],
        sample_forwards=content["sample_forwards"],
    )
