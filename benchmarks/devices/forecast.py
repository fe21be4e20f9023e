"""Seconds of a step on many devices, from those on one and what crosses.

T(D) = W ⌈P/D⌉/P + 2 α log₂ D + 2 (D − 1)/D · S/β: the work W of P pairs, divided as far
as pairs go, and an all-reduce of S bytes, by its latency α for each level of a tree and
the bandwidth β of the slowest link.
"""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.markdown import table

DEVICES = (1, 8, 64, 1024)
IN_NODE = 8
"""Devices that are joined by the quicker link."""
LATENCY = 10e-6
"""α in seconds."""
BANDWIDTHS = {"within 8": 300e9, "beyond": 50e9}
"""β in bytes per second: about NVLink, and a network card of 400 Gb/s for each."""


class Work(NamedTuple):
    """A step on one device.

    Attributes:
      name: what it trains.
      seconds: W.
      pairs: P.
      size: S, in bytes.
    """

    name: str
    seconds: float
    pairs: int
    size: float

    def on(self, devices: int) -> tuple[float, float]:
        """Seconds of work and seconds of what crosses."""
        work = self.seconds * math.ceil(self.pairs / devices) / self.pairs
        if devices == 1:
            return work, 0.0
        link = BANDWIDTHS["within 8" if devices <= IN_NODE else "beyond"]
        latency = 2 * LATENCY * math.log2(devices)
        return work, latency + 2 * (devices - 1) / devices * self.size / link


def works(results: Path) -> list[Work]:
    """What was measured on one H100, from the files kept in ``results``."""
    large = json.loads((results / "step_cost/large_h100.json").read_text())
    folder = results / "train/mnist-mlp-qiaso-low-rank-h100"
    experiment = json.loads((folder / "config.json").read_text())["experiment"]
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    timing = json.loads(lines[-1])["timing"]
    rate = timing["examples_per_second"]
    hidden = [784, *experiment["hidden"], 10]
    weights = sum((m + 1) * n for m, n in itertools.pairwise(hidden))
    return [
        Work(
            "MLP, K = 256, 512 examples",
            experiment["batch_size"] / rate,
            experiment["candidates"] // 2,
            4 * weights,
        ),
        Work(
            "transformer of 100M weights, K = 1,000",
            sorted(large["seconds"])[len(large["seconds"]) // 2],
            large["candidates"] // 2,
            large["parameter_bytes"],
        ),
    ]


def rows(each: list[Work]) -> list[list[str]]:
    """One row for each work and number of devices."""
    found = []
    for work in each:
        for devices in DEVICES:
            own, crossing = work.on(devices)
            gain = work.seconds / (own + crossing)
            found.append(
                [
                    work.name,
                    f"{devices:,}",
                    f"{math.ceil(work.pairs / devices):,}",
                    f"{1e3 * own:.3g}",
                    f"{1e3 * crossing:.3g}",
                    f"{gain:.3g}",
                    f"{gain / devices:.2f}",
                ]
            )
    return found


def as_table(each: list[Work]) -> str:
    """The forecast as Markdown."""
    columns = ["", "devices", "pairs of each", "ms of work", "ms of what crosses"]
    columns += ["times as quick", "efficiency"]
    return table(columns, rows(each), numbers=True)


def assumptions() -> dict[str, Any]:
    """What the forecast takes for granted."""
    return {"latency": LATENCY, "bandwidths": BANDWIDTHS, "in_node": IN_NODE}
