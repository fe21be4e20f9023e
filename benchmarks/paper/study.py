"""A profile, and the runs of the training harness that it affords, each trained once.

A run is kept as ``<results>/<profile>/runs/<name>.json``: its settings, where it was
made, and its curves. Tables share runs: one that is there is not trained again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

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
from benchmarks.paper.runs import Protocol, Run, as_stored, packed, read_run

ProfileName = Literal["smoke", "cpu", "full"]
RESULTS = Path(__file__).parents[1] / "results" / "paper"
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


@dataclasses.dataclass(frozen=True)
class Study:
    """Where runs are found and made."""

    profile: ProfileName = "cpu"
    """smoke: minutes, on digits. cpu: hours on two cores. full: as in the paper."""
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
        if path.exists():
            run = read_run(path)
            if run.experiment == as_stored(experiment):
                return run
            if not self.train:
                raise UserError(
                    f"{path} holds a run with other settings than {self.profile} asks "
                    "for: run the table again without --no-train"
                )
        if not self.train:
            return None
        folder = self.work / self.profile / name
        self.train_into(folder, experiment)
        path.parent.mkdir(parents=True, exist_ok=True)
        records.write_text(path, json.dumps(packed(folder)) + "\n")
        return read_run(path)

    def train_into(self, folder: Path, experiment: Experiment) -> None:
        """Trains, from where an interrupted run in ``folder`` stopped."""
        command = Command(
            experiment,
            output=folder,
            resume=(folder / "config.json").exists(),
            checkpoint_every=10,
            data_dir=self.data_dir,
            cache_dir=self.cache_dir,
        )
        status = train.run(command, Console(stderr=True, soft_wrap=True))
        if status:
            raise SystemExit(status)

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
