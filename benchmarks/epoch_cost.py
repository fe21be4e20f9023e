"""``python -m benchmarks.epoch_cost``: what an epoch costs beside an epoch of Adam.

The optimizers take turns within one process, so that whatever else the machine does
strikes all of them; the ratio is between medians.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro

from benchmarks import data, pipeline, records
from benchmarks.errors import UserError
from benchmarks.loop import compile_program
from benchmarks.optimizers import OptimizerName
from benchmarks.settings import Experiment, resolved

RESULTS = Path(__file__).parent / "results" / "train"


@dataclasses.dataclass(frozen=True)
class Command:
    """Times epochs of several optimizers in turns; the first is the unit."""

    optimizers: tuple[OptimizerName, ...] = ("adam", "hybrid")
    experiment: Annotated[Experiment, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=lambda: Experiment(limit=12_800)
    )
    rounds: int = 7
    output: Path = RESULTS / "epoch_cost.json"
    data_dir: Path | None = None
    cache_dir: Path | None = None


def main(command: Command) -> dict[str, Any]:
    """Writes and returns seconds, CPU seconds and their ratios."""
    experiment = command.experiment
    dataset = data.load(experiment.dataset, command.data_dir, command.cache_dir)
    splits = pipeline.split(dataset, experiment.validation, experiment.limit)
    programs = {
        name: compile_program(
            resolved(dataclasses.replace(experiment, optimizer=name)), splits
        )
        for name in command.optimizers
    }
    wall: dict[str, list[float]] = {name: [] for name in programs}
    cpu: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(command.rounds + 1):
        for name, program in programs.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            jax.block_until_ready(program.epoch(program.state, 1))
            wall[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - cpu_start)
    report: dict[str, Any] = {}
    unit = command.optimizers[0]
    for name, program in programs.items():
        # The first round warms up.
        seconds, cpu_seconds = np.median(wall[name][1:]), np.median(cpu[name][1:])
        report[name] = {
            "seconds": round(float(seconds), 4),
            "cpu_seconds": round(float(cpu_seconds), 4),
            "ratio": round(float(seconds / np.median(wall[unit][1:])), 2),
            "cpu_ratio": round(float(cpu_seconds / np.median(cpu[unit][1:])), 2),
            "sample_forwards": program.sample_forwards_per_epoch,
            "compile_seconds": round(program.compile_seconds, 2),
        }
    content = {"optimizers": report, "rounds": command.rounds}
    content |= {"experiment": dataclasses.asdict(experiment)} | records.provenance()
    command.output.parent.mkdir(parents=True, exist_ok=True)
    records.write_json(command.output, content)
    return report


if __name__ == "__main__":
    try:
        print(main(tyro.cli(Command, description=__doc__)))
    except UserError as error:
        sys.exit(f"error: {error}")
