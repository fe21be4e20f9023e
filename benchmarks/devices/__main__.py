"""``python -m benchmarks.devices``: a step on one device and on two, and a forecast.

Each device is one core: processes are pinned, and XLA has one thread for a device. Of
eight devices the compiled program is looked at: what crosses, and the operations of
each. Leaves ``results.json`` and ``table.md`` in the output folder.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import cli
from benchmarks.cli import progress, require_at_least
from benchmarks.devices import forecast
from benchmarks.devices.worker import METHODS
from benchmarks.harness import records
from benchmarks.markdown import table
from benchmarks.step_cost.measure import significant

RESULTS = Path("benchmarks/results")
FLAGS = "--xla_cpu_multi_thread_eigen=false --xla_force_host_platform_device_count={}"
NAMES = {
    "rademacher": "signs, K = 64, 128 examples",
    "low_rank": "low rank, K = 64, 128 examples",
    "node": "node space, K = 30, 2,048 examples",
}
TEXT = """\
# Devices

The paper's MLP. *Efficiency*: seconds on one device over twice those on two, each
device a core of its own; the median of {rounds} interleaved rounds of {steps} steps.
Bytes and operations are of one step and device, from the compiled program.

{measured}

## What is to be expected of more

From a step on one H100 (`step_cost/large_h100.json`,
`train/mnist-mlp-qiaso-low-rank-h100`) as T(D) = W ⌈P/D⌉/P + 2 α log₂ D +
2 (D − 1)/D · S/β: P pairs of candidates, S bytes of parameters, α = 10 µs, β = 300 GB/s
within eight devices and 50 GB/s beyond. None of it is measured.

{forecast}

Written by `python -m benchmarks.devices`.
"""


@dataclasses.dataclass(frozen=True)
class Command:
    """Measures steps on several devices."""

    output: Path = RESULTS / "devices"
    """Folder for results.json and table.md."""
    rounds: int = 5
    steps: int = 30


def main(command: Command) -> None:
    """Writes everything."""
    require_at_least(command, 1, "rounds", "steps")
    command.output.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    for method in METHODS:
        seconds: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(command.rounds):
            for devices, times in seconds.items():
                row = worked(method, devices, command.steps)
                times.append(float(np.median(row["seconds"])))
        ratios = np.array(seconds[1]) / (2 * np.array(seconds[2]))
        found[method] = {
            "seconds": {k: list(map(significant, v)) for k, v in seconds.items()},
            "efficiency": significant(float(np.median(ratios))),
            "compiled": {n: worked(method, n, 0) for n in (1, 2, 8)},
        }
        progress(f"{NAMES[method]}: efficiency {found[method]['efficiency']}")
    works = forecast.works(RESULTS)
    content = {
        "command": "python -m benchmarks.devices",
        "settings": {"rounds": command.rounds, "steps": command.steps},
        "methods": found,
        "assumptions": forecast.assumptions(),
        "works": [work._asdict() for work in works],
    } | records.provenance()
    records.write_json(command.output / "results.json", content)
    text = TEXT.format(
        rounds=command.rounds,
        steps=command.steps,
        measured=as_table(found).strip(),
        forecast=forecast.as_table(works).strip(),
    )
    records.write_text(command.output / "table.md", text)
    print(text)


def worked(method: str, devices: int, steps: int) -> dict[str, Any]:
    """A measurement in a process that has a core for each device, as far as they go."""
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[:devices]))
    command = [
        "taskset",
        "-c",
        cores,
        sys.executable,
        "-m",
        "benchmarks.devices.worker",
    ]
    done = subprocess.run(
        [*command, method, str(devices), str(steps)],
        env={**os.environ, "XLA_FLAGS": FLAGS.format(devices), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{method} on {devices} devices: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def as_table(found: dict[str, Any]) -> str:
    """The measurements as Markdown."""
    rows = []
    for method, row in found.items():
        one, two = (1e3 * float(np.median(times)) for times in row["seconds"].values())
        compiled = list(row["compiled"].values())
        rows.append(
            [
                NAMES[method],
                f"{one:.3g}",
                f"{two:.3g}",
                f"{row['efficiency']:.2f}",
                f"{compiled[-1]['bytes']:,} in {compiled[-1]['collectives']}",
                f"{compiled[-1]['flops'] / compiled[0]['flops']:.3f}",
            ]
        )
    columns = ["", "ms on 1", "ms on 2", "efficiency", "bytes that cross, on 8"]
    columns += ["operations of a device, 8 against 1"]
    return table(columns, rows, numbers=True)


if __name__ == "__main__":
    cli.run(main, Command, __doc__)
