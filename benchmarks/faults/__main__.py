"""``python -m benchmarks.faults``: what faults cost that are injected on purpose.

Leaves ``results.json`` and ``table.md`` in the output folder, and the same tables at
the end of ``docs/faults.md``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import signal
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import cli
from benchmarks.cli import UserError, progress, require_at_least
from benchmarks.faults import endurance, files, processes, searching, training
from benchmarks.faults.report import page, placed
from benchmarks.harness import records

ENDED = (
    ("qiaso", signal.SIGKILL),
    ("qiaso", signal.SIGINT),
    ("node-qiaso", signal.SIGKILL),
)


@dataclasses.dataclass(frozen=True)
class Command:
    """Injects faults into losses, gradients, processes and files."""

    output: Path = Path("benchmarks/results/faults")
    """Folder for results.json and table.md."""
    docs: Path = Path("docs/faults.md")
    """The page whose last section the tables become."""
    seeds: int = 5
    """Trainings and searches with each fault."""
    steps: int = 300
    """Of a training."""
    times: int = 3
    """How often a training is ended by a signal."""
    checkpoints: int = 60
    """Checkpoints of orbax with each kind of damage; of msgpack ten times as many."""
    long_steps: int = 1_000_000
    """Of the long runs."""
    calls: int = 10_000
    """Of a compiled step, while memory is watched."""


def main(command: Command) -> None:
    """Writes everything, and prints the tables."""
    require_at_least(command, 1, "seeds", "steps", "times", "checkpoints", "calls")
    require_at_least(command, 10, "long_steps")
    try:
        # Before the minutes that fill it.
        document = command.docs.read_text()
        command.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write the results: {error}") from error
    settings = dataclasses.asdict(command)
    content = {
        "command": "python -m benchmarks.faults",
        "settings": {k: v for k, v in settings.items() if k not in ("output", "docs")},
        "trainings": trainings(command),
        "searches": searches(command),
        "processes": ended_processes(command),
        "files": damaged_files(command),
        "long": long_runs(command),
    }
    content |= records.provenance()
    records.write_json(command.output / "results.json", content)
    text = page(content)
    records.write_text(command.output / "table.md", f"# Faults\n\n{text}")
    records.write_text(command.docs, placed(document, text))
    print(text)


def trainings(command: Command) -> list[dict[str, Any]]:
    """Losses and gradients that are replaced."""
    rows = []
    for name in training.methods():
        rows += training.train(name, command.steps, command.seeds)
        progress(f"digits: {name}")
    return rows


def searches(command: Command) -> list[dict[str, Any]]:
    """Simulations that die, and functions with holes."""
    rows = []
    for name in searching.METHODS:
        rows += searching.asked_and_told(name, command.seeds)
        progress(f"ask and tell: {name}")
    return rows + searching.minimised(command.seeds)


def ended_processes(command: Command) -> list[dict[str, Any]]:
    """Trainings that are killed and interrupted."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for optimizer, end in ENDED:
            place = Path(folder) / optimizer
            rows.append(processes.ended(place, optimizer, end, command.times))
            progress(f"{end.name}: {optimizer}")
    return rows


def damaged_files(command: Command) -> list[dict[str, Any]]:
    """Checkpoints that are damaged, or of something else."""
    rows = []
    for name in files.DAMAGES:
        # tensorstore prints a trace for each array that it cannot read.
        with (
            tempfile.TemporaryDirectory() as folder,
            contextlib.redirect_stderr(io.StringIO()),
        ):
            place = Path(folder)
            rows.append(files.damaged_checkpoints(place, name, command.checkpoints))
        rows += files.damaged_bytes(name, 10 * command.checkpoints)
        progress(f"checkpoints: {name}")
    return [
        *sorted(rows, key=lambda row: row["reader"]),
        files.old_states(),
        files.foreign_states(),
    ]


def long_runs(command: Command) -> list[dict[str, Any]]:
    """A million steps."""
    rows = []
    for name in endurance.METHODS:
        rows.append(endurance.endured(name, command.long_steps, command.calls))
        progress(f"{command.long_steps:,} steps: {name}")
    return rows


if __name__ == "__main__":
    cli.run(main, Command, __doc__)
