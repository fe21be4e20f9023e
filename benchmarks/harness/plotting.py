"""Curves of a run: loss and accuracy over epochs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

LOSSES = ("train_loss", "validation_loss", "test_loss")
ACCURACIES = ("validation_accuracy", "test_accuracy")


def curves(records: list[dict[str, Any]], title: str) -> Figure:
    """The mean over seeds of every quantity, with a band from least to greatest."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    panels: Any = figure.subplots(1, 2)
    epochs = [record["epoch"] for record in records]
    for axes, names, label in (
        (panels[0], LOSSES, "cross-entropy"),
        (panels[1], ACCURACIES, "accuracy"),
    ):
        for name in names:
            if name not in records[0]:
                continue
            values = np.array([record[name] for record in records])
            axes.plot(epochs, values.mean(axis=1), label=name.replace("_", " "))
            axes.fill_between(epochs, values.min(axis=1), values.max(axis=1), alpha=0.2)
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.legend()
        axes.grid(alpha=0.3)
    panels[0].set_yscale("log")
    seeds = len(records[0]["test_accuracy"])
    figure.suptitle(f"{title}, {seeds} seed{'s' if seeds > 1 else ''}")
    return figure


def write_curves(path: Path, records: list[dict[str, Any]], title: str) -> None:
    """Draws ``curves`` into ``path``."""
    curves(records, title).savefig(path, dpi=80)
