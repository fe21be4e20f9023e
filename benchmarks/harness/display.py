"""Progress on the terminal, and TensorBoard event files on request."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
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


class Display:
    """A bar of epochs; without a terminal, one line per epoch."""

    def __init__(self, console: Console, title: str, program: Program, done: int):
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(
            title, total=program.epochs, completed=done, numbers=""
        )

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Leaves the bar where it is."""
        self._progress.stop()

    def show(self, record: dict[str, Any]) -> None:
        """Shows the epoch of ``record``."""
        numbers = (
            f"loss {np.mean(record['train_loss']):.4f}  "
            f"test {100 * np.mean(record['test_accuracy']):.2f} %  "
            f"{record['timing']['examples_per_second']:,} examples/s  "
            f"{record['sample_forwards']:.3g} sample-forwards"
        )
        self._progress.update(self._task, completed=record["epoch"], numbers=numbers)
        if not self._console.is_terminal:
            self._console.print(f"epoch {record['epoch']}: {numbers}", highlight=False)


class EventFiles:
    """TensorBoard files of every seed's numbers, or nothing."""

    def __init__(self, folder: Path, enabled: bool, done: int):
        self._writer: Any = None
        if enabled:
            # Imported where asked for: it brings protobuf with it.
            from tensorboardX import SummaryWriter

            # What a killed run wrote after its checkpoint is not to be shown.
            self._writer = SummaryWriter(
                str(folder / "tensorboard"), purge_step=done + 1
            )

    def __enter__(self) -> EventFiles:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, record: dict[str, Any]) -> None:
        """Adds the epoch of ``record``."""
        if self._writer is None:
            return
        for name, values in record.items():
            if isinstance(values, list):
                for seed, value in enumerate(values):
                    self._writer.add_scalar(f"{name}/{seed}", value, record["epoch"])
        self._writer.flush()
