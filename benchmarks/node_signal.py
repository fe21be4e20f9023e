"""``python -m benchmarks.node_signal``: how near node-space QIASO is to the gradient.

Cosines between its pseudo-gradient and the back-propagated gradient, for every kernel
of three networks, against the pairs per example, with and without each selection,
before and after a short training. Leaves ``results.json``, ``table.md`` and
``cosine.png`` in the output folder.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import jax
import numpy as np
import tyro
from matplotlib.figure import Figure
from rich.console import Console

from benchmarks import data, pipeline, records
from benchmarks import node_signal_measure as measure
from benchmarks.data import DatasetName
from benchmarks.errors import UserError
from benchmarks.node_signal_measure import SELECTIONS, NetworkName, Selection

STAGES = ("initial", "trained")
DETAIL = 16
"""Pairs nearest to these are those of the tables per kernel."""

NOTES = """\
Mean ± standard error over {keys} keys, each with a minibatch, a draw of examples and
a noise of its own, of the cosine to the back-propagated gradient of the mean loss over
the whole minibatch; sigma = {sigma:g}, eta = 0. The first table of each network has the
mean over its kernels, the second the kernels at {detail} pairs.

- *examples*: which get candidates. *all* of the minibatch; a quarter of it, *uniform*
  or *telling*, drawn as `node_qiaso(examples=0.25)` does. At equal pairs *uniform* and
  *telling* evaluate equally many candidates, and *all* as many with a quarter of the
  pairs.
- *nodes*: which get noise, *all* or only the *reactive* ones (`reactive_only`). The two
  rows have the same draws and signs.
- *∞*: the back-propagated gradient of the examples drawn, which is what more pairs lead
  to at small sigma. 1 for all examples.
- *trained*: after {steps} steps of Adam at rate {rate:g} on minibatches of {batch}.
"""


@dataclasses.dataclass(frozen=True)
class Command:
    """Measures the cosine of node-space pseudo-gradients to the gradient."""

    output: Path = Path("benchmarks/results/node_signal")
    """Folder for results.json, table.md and cosine.png."""
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


def main(command: Command) -> int:
    """Runs ``command``; returns the exit status of the process."""
    console = Console()
    try:
        run(command, console)
    except UserError as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        return 1
    return 0


def run(command: Command, console: Console) -> None:
    """Writes everything; raises ``UserError`` for what a user can mend."""
    check(command)
    dataset = data.load(command.dataset, command.data_dir, command.cache_dir)
    splits = pipeline.split(dataset, validation=0.1)
    for name in ("batch_size", "cnn_batch_size"):
        if getattr(command, name) > len(splits.train.labels):
            raise UserError(
                f"--{name.replace('_', '-')} {getattr(command, name)} is more than the "
                f"{len(splits.train.labels)} training examples"
            )
    command.output.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    for name in command.networks:
        start = time.perf_counter()
        found[name] = measured(command, name, splits)
        seconds = found[name]["seconds"] = round(time.perf_counter() - start, 1)
        console.print(f"{name}: {seconds} s", style="dim")
    settings = dataclasses.asdict(command)
    for unstored in ("output", "data_dir", "cache_dir"):
        del settings[unstored]
    content = {"command": "python -m benchmarks.node_signal", "settings": settings}
    content |= {"networks": found} | records.provenance()
    records.write_json(command.output / "results.json", content)
    records.write_text(command.output / "table.md", table(command, found))
    figure(command, found).savefig(command.output / "cosine.png", dpi=100)


def check(command: Command) -> None:
    """Raises ``UserError`` for numbers that cannot be."""
    for name in ("pairs", "cnn_pairs"):
        pairs = getattr(command, name)
        if not pairs or min(pairs) < 1 or list(pairs) != sorted(set(pairs)):
            raise UserError(
                f"--{name.replace('_', '-')} must rise from at least 1, got "
                f"{list(pairs)}"
            )
    for name, least in (
        ("keys", 2),
        ("batch_size", measure.FRACTION),
        ("cnn_batch_size", measure.FRACTION),
        ("train_steps", 1),
    ):
        if getattr(command, name) < least:
            raise UserError(
                f"--{name.replace('_', '-')} must be at least {least}, got "
                f"{getattr(command, name)}"
            )
    for name in ("sigma", "learning_rate"):
        if not 0 < getattr(command, name) < math.inf:
            raise UserError(
                f"--{name.replace('_', '-')} must be positive, got "
                f"{getattr(command, name)}"
            )
    if not command.networks:
        raise UserError("--networks must name at least one")


def measured(
    command: Command, name: NetworkName, splits: pipeline.Splits
) -> dict[str, Any]:
    """All cosines of one network, as in ``results.json``."""
    network = measure.build(name)
    meter = measure.Meter(network, command.sigma)
    batch_size, pairs = command.sizes(name)
    report: dict[str, Any] = {"batch_size": batch_size, "pairs": pairs, "stages": {}}
    for stage, num_steps in zip(STAGES, (0, command.train_steps), strict=True):
        model = measure.trained(network, splits, num_steps, command.learning_rate)
        rows, losses = {}, []
        for selection in SELECTIONS:
            found = []
            for seed in range(command.keys):
                batch_key, key = jax.random.split(jax.random.key(seed))
                batch = measure.draw_batch(batch_key, splits, batch_size)
                found.append(meter.cosines(selection, pairs, key, batch, *model))
            rows[selection.name] = summary(found)
            losses = [each.loss for each in found]
        report["stages"][stage] = {
            "loss": round(float(np.mean(losses)), 4),
            "selections": rows,
        }
    return report


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
        error = cosines.std(axis=0, ddof=1) / math.sqrt(len(cosines))
        rows[path] = {
            "cosine": mean[:-1],
            "standard_error": np.round(error, 4).tolist()[:-1],
            "limit": mean[-1],
        }
    return rows


def table(command: Command, found: dict[str, Any]) -> str:
    """The cosines as Markdown."""
    detail = {name: _nearest(report["pairs"]) for name, report in found.items()}
    lines = ["# Cosine of the node-space pseudo-gradient to the gradient", ""]
    lines += [
        NOTES.format(
            keys=command.keys,
            sigma=command.sigma,
            detail=" or ".join(str(each) for each in sorted(set(detail.values()))),
            steps=command.train_steps,
            rate=command.learning_rate,
            batch=measure.TRAINING_BATCH,
        )
    ]
    for name, report in found.items():
        for stage, content in report["stages"].items():
            rows = content["selections"]
            lines += [
                f"## {name}, {stage}, minibatch of {report['batch_size']}, "
                f"loss {content['loss']:.3g}",
                "",
                _row(["pairs", *map(str, report["pairs"]), "∞"]),
                _row(["---", *["---:"] * (len(report["pairs"]) + 1)]),
            ]
            for selection in SELECTIONS:
                mean = rows[selection.name]["mean over kernels"]
                cells = [_cell(mean, i) for i in range(len(report["pairs"]))]
                lines += [_row([selection.name, *cells, f"{mean['limit']:.2f}"])]
            at = report["pairs"].index(detail[name])
            kernels = list(rows[SELECTIONS[0].name])[1:]
            lines += ["", _row([f"{detail[name]} pairs", *kernels])]
            lines += [_row(["---", *["---:"] * len(kernels)])]
            for selection in SELECTIONS:
                cells = [_cell(rows[selection.name][path], at) for path in kernels]
                lines += [_row([selection.name, *cells])]
            lines += [""]
    return "\n".join([*lines, "Written by `python -m benchmarks.node_signal`.", ""])


def _nearest(pairs: tuple[int, ...]) -> int:
    return min(pairs, key=lambda each: abs(math.log(each / DETAIL)))


def _cell(row: dict[str, Any], index: int) -> str:
    return f"{row['cosine'][index]:.2f} ± {row['standard_error'][index]:.2f}"


def _row(texts: list[str]) -> str:
    return "| " + " | ".join(texts) + " |"


def figure(command: Command, found: dict[str, Any]) -> Figure:
    """Cosine against pairs at both stages, and against the cost once trained."""

    def by_pairs(selection: Selection, pairs: int) -> float:
        del selection
        return pairs

    panels: list[tuple[str, str, Callable[[Selection, int], float]]] = [
        ("initial", "pairs per example with candidates", by_pairs),
        ("trained", "pairs per example with candidates", by_pairs),
        ("trained", "forward passes per example of the minibatch", Selection.forwards),
    ]
    drawing = Figure(figsize=(1 + 3.6 * len(found), 10), layout="constrained")
    grid: Any = drawing.subplots(3, len(found), squeeze=False, sharey=True)
    colours = {"all": "tab:blue", "uniform": "tab:grey", "telling": "tab:orange"}
    for column, (name, report) in enumerate(found.items()):
        for row, (stage, label, cost) in enumerate(panels):
            axes = grid[row, column]
            for selection in SELECTIONS:
                rows = report["stages"][stage]["selections"][selection.name]
                mean = rows["mean over kernels"]
                axes.errorbar(
                    [cost(selection, each) for each in report["pairs"]],
                    mean["cosine"],
                    mean["standard_error"],
                    label=selection.name,
                    color=colours[selection.examples],
                    linestyle="-" if selection.reactive_only else "--",
                    marker=".",
                    capsize=2,
                )
            axes.set(title=f"{name}, {stage}", xlabel=label, xscale="log")
            axes.grid(alpha=0.3)
    for axes in grid[:, 0]:
        axes.set_ylabel("cosine, mean over kernels")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
    drawing.suptitle(
        f"Pseudo-gradient and gradient on {command.dataset}, {command.keys} keys"
    )
    return drawing


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Command)))
