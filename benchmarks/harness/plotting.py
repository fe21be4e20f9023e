"""Curves of a run: loss and accuracy over epochs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from qiaso_jax import plot

LOSSES = ("train_loss", "validation_loss", "test_loss")
ACCURACIES = ("validation_accuracy", "test_accuracy")


def protocol(experiment: dict[str, Any]) -> str:
    """The settings of a run that its curves have to be read with."""
    network = experiment["network"]
    if network == "mlp":
        network += " " + "-".join(map(str, experiment["hidden"]))
    settings = [
        f"{experiment['optimizer']} on {experiment['dataset']}",
        network,
        f"minibatches of {experiment['batch_size']}",
    ]
    if experiment["sigma"] is not None:
        settings.append(f"K = {experiment['candidates']}")
        settings.append(f"σ = {experiment['sigma']:g}")
    if experiment["learning_rate"] is not None:
        settings.append(f"rate {experiment['learning_rate']:g}")
    return ", ".join(settings)


@plot.style()
def curves(records: list[dict[str, Any]], protocol: str) -> Figure:
    """The mean over seeds of every quantity, with a band from least to greatest."""
    figure = Figure(figsize=(plot.WIDTH, plot.WIDTH), layout="constrained")
    panels: Any = figure.subplots(2, 1, sharex=True)
    epochs = [record["epoch"] for record in records]
    for axes, names, label, unit in (
        (panels[0], LOSSES, "cross-entropy (nats)", 1),
        (panels[1], ACCURACIES, "accuracy (%)", 100),
    ):
        for name in names:
            if name not in records[0]:
                continue
            values = unit * np.array([record[name] for record in records])
            plot.curve(
                epochs,
                values.mean(axis=1),
                (values.min(axis=1), values.max(axis=1)),
                ax=axes,
                label=name.replace("_", " "),
            )
        axes.set_ylabel(label)
        axes.legend()
    shown = np.concatenate([line.get_ydata() for line in panels[0].lines])
    if np.max(shown) > 10 * np.min(shown) > 0:
        panels[0].set_yscale("log")
    panels[1].set_xlabel("epoch")
    panels[1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    seeds = len(records[0]["test_accuracy"])
    spread = f"mean of {seeds} seeds, band from least to greatest"
    plot.caption(figure, f"{protocol}; {spread if seeds > 1 else 'one seed'}.")
    return figure


def write_curves(path: Path, records: list[dict[str, Any]], protocol: str) -> None:
    """Draws ``curves`` into two files, which begin as ``path``."""
    plot.save(curves(records, protocol), path)
