"""Progress on the terminal, and TensorBoard event files on request."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from benchmarks.harness.loop import Program

Show = Callable[[dict[str, Any]], None]


class Display(Progress):
    """A bar of epochs; without a terminal, one line per epoch."""

    def __init__(self, console: Console, title: str, program: Program, done: int):
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._epochs = self.add_task(
            title, total=program.epochs, completed=done, numbers=""
        )

    def show(self, record: dict[str, Any]) -> None:
        """Shows the epoch of ``record``."""
        numbers = (
            f"loss {np.mean(record['train_loss']):.4f}  "
            f"test {100 * np.mean(record['test_accuracy']):.2f} %  "
            f"{record['timing']['examples_per_second']:,} examples/s  "
            f"{record['sample_forwards']:.3g} sample-forwards"
        )
        self.update(self._epochs, completed=record["epoch"], numbers=numbers)
        if not self.console.is_terminal:
            self.console.print(f"epoch {record['epoch']}: {numbers}", highlight=False)


@contextlib.contextmanager
def event_files(folder: Path, done: int) -> Iterator[Show]:
    """TensorBoard files of every seed's numbers; gives what writes a record's epoch."""
    # Imported where asked for: it brings protobuf with it.
    from tensorboardX import SummaryWriter

    def write(record: dict[str, Any]) -> None:
        for name, values in record.items():
            if isinstance(values, list):
                for seed, value in enumerate(values):
                    writer.add_scalar(f"{name}/{seed}", value, record["epoch"])
        writer.flush()

    # What a killed run wrote after its checkpoint is not to be shown.
    path = str(folder / "tensorboard")
    with SummaryWriter(path, purge_step=done + 1) as writer:
        yield write
