"""``python -m benchmarks.epoch_cost``: what an epoch costs beside an epoch of Adam.

The optimizers take turns within one process, so that whatever else the machine does
strikes all of them; the ratio is between medians.

An optimizer is given by its name, node-qiaso and the hybrids also with a fraction of
their own for ``--examples``: ``--optimizers adam node-qiaso:examples=0.25 node-qiaso``.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro

from benchmarks import cli
from benchmarks.cli import UserError, require_at_least, require_some
from benchmarks.harness import data, pipeline, records
from benchmarks.harness.loop import compile_program
from benchmarks.harness.optimizers import NAMES
from benchmarks.harness.settings import Experiment, completed, resolved
from benchmarks.harness.stopwatch import Stopwatch

RESULTS = Path(__file__).parent / "results" / "train"


@dataclasses.dataclass(frozen=True)
class Command:
    """Times epochs of several optimizers in turns; the first is the unit."""

    optimizers: tuple[str, ...] = ("adam", "hybrid")
    """Each a name of benchmarks.train; node-qiaso and the hybrids may have
    :examples=FRACTION after them."""
    experiment: Annotated[Experiment, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=lambda: Experiment(limit=12_800)
    )
    rounds: int = 7
    """Epochs that are timed of each optimizer, after one that is not."""
    output: Path = RESULTS / "epoch_cost.json"
    data_dir: Path | None = None
    cache_dir: Path | None = None


def experiments(command: Command) -> dict[str, Experiment]:
    """What each entry of ``--optimizers`` asks for, in their order.

    A setting that is for all of them is left out where an optimizer does not take it.

    Raises:
      UserError: An entry is unknown or malformed, or there is none; or none takes a
        setting that is made.
    """
    require_some(command, "optimizers")
    if command.experiment.optimizer != Experiment.optimizer:
        raise UserError("--optimizer is of benchmarks.train; here it is --optimizers")
    found: dict[str, Experiment] = {}
    vain: list[dict[str, str]] = []
    for entry in command.optimizers:
        name, marked, option = entry.partition(":examples=")
        try:
            changes: dict[str, Any] = {"examples": float(option)} if marked else {}
        except ValueError as error:
            raise UserError(
                f"--optimizers: the fraction in {entry!r} is no number"
            ) from error
        if name not in NAMES:
            raise UserError(
                f"--optimizers must be of {', '.join(NAMES)}, with or without "
                f":examples=FRACTION after it, got {entry!r}"
            )
        shared, refused = completed(
            dataclasses.replace(command.experiment, optimizer=name)
        )
        vain.append(refused)
        found[entry] = resolved(dataclasses.replace(shared, **changes))
    for setting, sentence in vain[0].items():
        if all(setting in each for each in vain):
            raise UserError(sentence)
    return found


def main(command: Command) -> None:
    """Writes seconds, CPU seconds and their ratios; prints some.

    Raises:
      UserError: The command asks for what cannot be.
    """
    require_at_least(command, 1, "rounds")
    report = measured(
        experiments(command), command.rounds, command.data_dir, command.cache_dir
    )
    content = {"optimizers": report, "rounds": command.rounds}
    content |= records.provenance()
    command.output.parent.mkdir(parents=True, exist_ok=True)
    records.write_json(command.output, content)
    for entry, row in report.items():
        print(f"{entry}: {row['seconds']} s per epoch, ratio {row['ratio']}")


def measured(
    entries: dict[str, Experiment],
    rounds: int,
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
) -> dict[str, Any]:
    """Medians over ``rounds`` epochs of each entry, in turns; the first is the unit.

    The entries' datasets, limits and splits are those of the first.
    """
    unit, experiment = next(iter(entries.items()))
    dataset = data.load(experiment.dataset, data_dir, cache_dir)
    splits = pipeline.split(dataset, experiment.validation, experiment.limit)
    programs = {
        entry: compile_program(resolved_experiment, splits)
        for entry, resolved_experiment in entries.items()
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    for _ in range(rounds + 1):
        for name, program in programs.items():
            watch = Stopwatch()
            jax.block_until_ready(program.epoch(program.state, 1))
            times[name].append(watch.read())
    # The first round warms up.
    medians = {name: np.median(each[1:], axis=0) for name, each in times.items()}
    report: dict[str, Any] = {}
    for name, program in programs.items():
        seconds, cpu_seconds = medians[name].tolist()
        ratio, cpu_ratio = (medians[name] / medians[unit]).tolist()
        report[name] = {
            "seconds": round(seconds, 4),
            "seconds_of_rounds": [round(wall, 4) for wall, _ in times[name][1:]],
            "cpu_seconds": round(cpu_seconds, 4),
            "ratio": round(ratio, 2),
            "cpu_ratio": round(cpu_ratio, 2),
            "sample_forwards": program.sample_forwards_per_epoch,
            "compile_seconds": round(program.compile_seconds, 2),
            "examples_per_epoch": program.examples_per_epoch,
            "experiment": dataclasses.asdict(entries[name]),
        }
    return report


if __name__ == "__main__":
    cli.run(main, Command, __doc__)
