"""``python -m benchmarks.summary``: runs of ``benchmarks.train`` as one table."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from benchmarks import cli
from benchmarks.cli import UserError
from benchmarks.harness import records
from benchmarks.harness.settings import from_stored
from benchmarks.markdown import table

TRAIN = Path(__file__).parent / "results" / "train"
COLUMNS = (
    "run", "dataset", "network", "optimizer", "K", "batch", "epochs", "seeds",
    "million sample-forwards per seed", "seconds per seed", "test accuracy, %",
    "training loss",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Command:
    """Writes a Markdown table of the runs in the sub-folders of a folder."""

    folder: Annotated[Path, tyro.conf.Positional] = TRAIN
    """Where the runs are."""
    output: Path | None = None
    """Default: table.md in the folder."""


def main(command: Command) -> None:
    """Writes and prints the table.

    Raises:
      UserError: The folder holds no run.
    """
    configs = sorted(command.folder.glob("*/config.json"))
    rows = [row(path.parent) for path in configs]
    if not rows:
        raise UserError(f"{command.folder} holds no run of benchmarks.train")
    text = f"{table(COLUMNS, rows)}\n{NOTE}"
    output = command.output or command.folder / "table.md"
    records.write_text(output, text)
    print(text)


def row(folder: Path) -> list[str]:
    """One line of the table, about the last epoch of a run.

    Raises:
      UserError: A file of the run is missing or damaged.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
        experiment = from_stored(config["experiment"])
        history = records.read(folder / "metrics.jsonl")
        last = history[-1]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(f"{folder} is no whole run ({error!r})") from error
    accuracy = 100 * np.array(last["test_accuracy"])
    seconds = sum(record["timing"]["seconds"] for record in history)
    network = experiment.network
    if experiment.hidden:
        network += " " + "-".join(map(str, experiment.hidden))
    spread = f" ({accuracy.min():.2f} to {accuracy.max():.2f})"
    return [
        folder.name,
        experiment.dataset,
        network,
        experiment.optimizer,
        str(experiment.candidates or ""),
        str(experiment.batch_size),
        str(last["epoch"]),
        str(len(accuracy)),
        f"{last['sample_forwards'] / 1e6:.1f}",
        f"{seconds / len(accuracy):.0f}",
        f"{accuracy.mean():.2f}" + (spread if len(accuracy) > 1 else ""),
        f"{np.mean(last['train_loss']):.3g}",
    ]


NOTE = """\
Mean over seeds (least to greatest) after the last epoch, on the test set. A
sample-forward is one candidate evaluated on one example; clean passes count, and a
gradient counts as three. Seconds are of training, on the machine that each run's
`config.json` names, shared with other work or not. Written by `python -m
benchmarks.summary`.
"""


if __name__ == "__main__":
    cli.run(main, Command, __doc__)
