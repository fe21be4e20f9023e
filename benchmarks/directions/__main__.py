"""``python -m benchmarks.directions``: what kinds of directions cost and buy.

The variance of the pseudo-gradient and the accuracy of the MLP for every rank and for
dense directions; and what the kinds that may be the default reach on five problems.
Leaves ``results.json``, ``table_ranks.md`` and ``table_default.md`` in the output
folder.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from benchmarks import cli
from benchmarks.cli import progress, require_at_least, require_positive, require_some
from benchmarks.directions import kinds, report, tasks, training, variance
from benchmarks.directions.tasks import Task
from benchmarks.harness import data, pipeline, records
from benchmarks.harness.data import DatasetName
from benchmarks.harness.loop import compile_program
from benchmarks.harness.settings import Experiment
from benchmarks.step_cost.measure import significant

TaskName = Literal["mlp", "cnn", "transformer", "cartpole", "rastrigin"]
SHAPES = ((64, 32), (784, 128))


@dataclasses.dataclass(frozen=True)
class Command:
    """Compares kinds of directions."""

    output: Path = Path("benchmarks/results/directions")
    """Folder for results.json, table_ranks.md and table_default.md."""
    dataset: DatasetName = "mnist"
    """Of the perceptron."""
    tasks: tuple[TaskName, ...] = get_args(TaskName)
    draws: int = 4096
    """Directions whose variance is measured."""
    epochs: int = 5
    seeds: int = 3
    candidates: int = 30
    batch_size: int = 128
    rate: float = 3e-3
    quick: bool = False
    """A hundredth of it, to see that it runs: scikit-learn's digits, few steps."""
    data_dir: Path | None = None
    cache_dir: Path | None = None


def quick(command: Command) -> Command:
    """The same command on little data."""
    return dataclasses.replace(
        command, dataset="digits", draws=128, epochs=1, seeds=2, batch_size=64
    )


def main(command: Command) -> None:
    """Writes everything."""
    check(command)
    command = quick(command) if command.quick else command
    loaded = data.load(command.dataset, command.data_dir, command.cache_dir)
    splits = pipeline.split(loaded, validation=0.1)
    command.output.mkdir(parents=True, exist_ok=True)
    settings = dataclasses.asdict(command)
    for unstored in ("output", "data_dir", "cache_dir"):
        del settings[unstored]
    content: dict[str, Any] = {
        "command": "python -m benchmarks.directions",
        "settings": settings,
        "variance": of_variance(command),
        "accuracy": of_accuracy(command, splits),
        "tasks": of_tasks(command, splits),
    } | records.provenance()
    records.write_json(command.output / "results.json", content)
    pages = {
        "table_ranks.md": report.ranks(settings, content),
        "table_default.md": report.default(settings, content["tasks"]),
    }
    for name, page in pages.items():
        records.write_text(command.output / name, page)


def check(command: Command) -> None:
    """Raises ``UserError`` for numbers that cannot be."""
    require_some(command, "tasks")
    require_at_least(command, 1, "epochs", "seeds", "batch_size")
    require_at_least(command, 2, "draws", "candidates")
    require_positive(command, "rate")


def of_variance(command: Command) -> dict[str, Any]:
    """Of every kind, for kernels of two shapes."""
    found: dict[str, Any] = {}
    for shape in SHAPES:
        progress(f"variance, {shape}")
        found[" × ".join(map(str, shape))] = {
            name: variance.row(directions, shape, command.draws)
            for name, directions in kinds.EVERY.items()
        }
    return found


def of_accuracy(command: Command, splits: pipeline.Splits) -> dict[str, Any]:
    """Accuracy of each seed after every epoch, and the seconds until then."""
    found: dict[str, Any] = {}
    asked: dict[str, dict[str, Any]] = {
        name: {"directions": kind} for name, kind in kinds.DENSE.items()
    } | {
        name: {"directions": "low_rank", "rank": kind.rank}
        for name, kind in kinds.SIGNS.items()
    }
    for name, given in asked.items():
        experiment = Experiment(
            dataset=command.dataset,
            optimizer="qiaso",
            learning_rate=command.rate,
            schedule="constant",
            epochs=command.epochs,
            seeds=command.seeds,
            candidates=command.candidates,
            batch_size=command.batch_size,
            **given,
        )
        found[name] = curve(experiment, splits)
        last = np.mean([each[-1] for each in found[name]["accuracy"]])
        progress(f"{name}: {last:.2f} %, {found[name]['seconds'][-1]} s")
    return found


def curve(experiment: Experiment, splits: pipeline.Splits) -> dict[str, Any]:
    """Accuracy in percent, ``[seeds][1 + epochs]``, and seconds, ``[1 + epochs]``."""
    program = compile_program(experiment, splits)
    state, seconds = program.state, [0.0]
    accuracy = [program.evaluate(state)["validation_accuracy"]]
    for epoch in range(1, program.epochs + 1):
        start = time.perf_counter()
        state, loss = program.epoch(state, epoch)
        loss.block_until_ready()
        seconds.append(seconds[-1] + time.perf_counter() - start)
        accuracy.append(program.evaluate(state)["validation_accuracy"])
    return {
        "accuracy": np.round(100 * np.stack(accuracy, axis=1), 3).tolist(),
        "seconds": [significant(each) for each in seconds],
    }


def of_tasks(command: Command, splits: pipeline.Splits) -> dict[str, Any]:
    """What the kinds that may be the default reach."""
    found: dict[str, Any] = {}
    for name in command.tasks:
        task = built(name, splits)
        if command.quick:
            task = task._replace(steps=max(2, task.steps // 100))
        found[name] = {}
        for kind in kinds.DEFAULTS:
            found[name][kind] = training.row(task, kind, command.seeds)
            progress(f"{name}, {kind}: {found[name][kind]}")
    return found


def built(name: TaskName, splits: pipeline.Splits) -> Task:
    """The task called ``name``; the convolutional one has scikit-learn's digits."""
    if name == "mlp":
        return tasks.mlp(splits)
    if name == "cnn":
        return tasks.cnn(pipeline.split(data.load("digits"), validation=0.1))
    makers = {
        "transformer": tasks.transformer,
        "cartpole": tasks.pole,
        "rastrigin": tasks.rugged,
    }
    return makers[name]()


if __name__ == "__main__":
    cli.run(main, Command, __doc__)
