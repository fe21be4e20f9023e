"""``python -m benchmarks.node_signal``: how near node-space QIASO is to the gradient.

Cosines between its pseudo-gradient and the back-propagated gradient, for every kernel
of three networks, against the pairs per example, with and without each selection,
before and after a short training. Leaves ``results.json``, ``table.md`` and
``cosine.svg`` and ``cosine.png`` in the output folder.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any, get_args

import jax
import numpy as np
import scipy.stats

from benchmarks import cli
from benchmarks.cli import (
    progress,
    require,
    require_at_least,
    require_positive,
    require_some,
)
from benchmarks.harness import data, pipeline, records
from benchmarks.harness.data import DatasetName
from benchmarks.node_signal import measure, models, report
from benchmarks.node_signal.measure import SELECTIONS
from benchmarks.node_signal.models import NetworkName
from qiaso_jax import plot

STAGES = ("initial", "trained")


@dataclasses.dataclass(frozen=True)
class Command:
    """Measures the cosine of node-space pseudo-gradients to the gradient."""

    output: Path = Path("benchmarks/results/node_signal")
    """Folder for results.json, table.md and the figure."""
    dataset: DatasetName = "mnist"
    networks: tuple[NetworkName, ...] = get_args(NetworkName)
    pairs: tuple[int, ...] = (4, 16, 64, 256)
    """Antithetic pairs per example, half the number of candidates."""
    keys: int = 4
    """Estimates of each kind, for means and standard errors."""
    batch_size: int = 256
    cnn_pairs: tuple[int, ...] = (4, 16, 64)
    """For the cnn, whose candidates cost most."""
    cnn_batch_size: int = 64
    sigma: float = 0.02
    train_steps: int = 300
    learning_rate: float = 3e-3
    """Adam's, before the second measurement."""
    data_dir: Path | None = None
    cache_dir: Path | None = None

    def sizes(self, network: str) -> tuple[int, tuple[int, ...]]:
        """Batch size and pairs for ``network``."""
        if network == "cnn":
            return self.cnn_batch_size, self.cnn_pairs
        return self.batch_size, self.pairs


def main(command: Command) -> None:
    """Writes everything."""
    check(command)
    dataset = data.load(command.dataset, command.data_dir, command.cache_dir)
    splits = pipeline.split(dataset, validation=0.1)
    most = len(splits.train.labels)
    require(
        command, f"at most the {most} training examples", lambda size: size <= most,
        "batch_size", "cnn_batch_size",
    )  # fmt: skip
    command.output.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    for name in command.networks:
        start = time.perf_counter()
        found[name] = measured(command, name, splits)
        seconds = found[name]["seconds"] = round(time.perf_counter() - start, 1)
        progress(f"{name}: {seconds} s")
    settings = dataclasses.asdict(command)
    for unstored in ("output", "data_dir", "cache_dir"):
        del settings[unstored]
    content = {"command": "python -m benchmarks.node_signal", "settings": settings}
    content |= {"networks": found} | records.provenance()
    records.write_json(command.output / "results.json", content)
    records.write_text(command.output / "table.md", report.page(settings, found))
    plot.save(report.figure(settings, found), command.output / "cosine")


def check(command: Command) -> None:
    """Raises ``UserError`` for numbers that cannot be."""
    require_some(command, "networks", "pairs", "cnn_pairs")
    require_at_least(command, 1, "pairs", "cnn_pairs", "train_steps")
    require_at_least(command, 2, "keys")
    require_at_least(command, measure.FRACTION, "batch_size", "cnn_batch_size")
    require_positive(command, "sigma", "learning_rate")


def measured(
    command: Command, name: NetworkName, splits: pipeline.Splits
) -> dict[str, Any]:
    """All cosines of one network, as in ``results.json``."""
    network = models.build(name)
    meter = measure.Meter(network, command.sigma)
    batch_size, pairs = command.sizes(name)
    stages: dict[str, Any] = {}
    for stage, num_steps in zip(STAGES, (0, command.train_steps), strict=True):
        model = models.trained(network, splits, num_steps, command.learning_rate)
        rows, losses = {}, []
        for selection in SELECTIONS:
            found = []
            for seed in range(command.keys):
                batch_key, key = jax.random.split(jax.random.key(seed))
                batch = models.draw_batch(batch_key, splits, batch_size)
                found.append(meter.cosines(selection, pairs, key, batch, *model))
            rows[selection.name] = summary(found)
            losses = [each.loss for each in found]
        loss = round(float(np.mean(losses)), 4)
        stages[stage] = {"loss": loss, "selections": rows}
    return {"batch_size": batch_size, "pairs": pairs, "stages": stages}


def summary(found: list[measure.Cosines]) -> dict[str, Any]:
    """Means and standard errors over the keys, per kernel and of their mean."""
    kernels = {
        path: np.array([[*each.values[path], each.limit[path]] for each in found])
        for path in found[0].values
    }
    everything = {
        "mean over kernels": np.mean(list(kernels.values()), axis=0),
        **kernels,
    }
    rows = {}
    for path, cosines in everything.items():
        mean = np.round(cosines.mean(axis=0), 4).tolist()
        error = np.round(scipy.stats.sem(cosines, axis=0), 4).tolist()
        rows[path] = {
            "cosine": mean[:-1],
            "standard_error": error[:-1],
            "limit": mean[-1],
        }
    return rows


if __name__ == "__main__":
    cli.run(main, Command, __doc__)
