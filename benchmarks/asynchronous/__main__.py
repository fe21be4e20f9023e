"""``python -m benchmarks.asynchronous``: what is gained by not waiting for the slowest.

Leaves ``results.json`` and ``table.md`` in the output folder.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import cli
from benchmarks.asynchronous.measure import cluster, seconds_to, survived
from benchmarks.asynchronous.simulator import CONDITION, HANG, KILL, SLOW
from benchmarks.cli import progress
from benchmarks.harness import records
from benchmarks.markdown import table

NOTES = """\
`qiaso_jax.minimize` on an ellipsoid of condition {condition:g} in {dimension}-D, on a
cluster of `dask.distributed` on this machine, {workers} processes of {threads} threads.
An evaluation takes {milliseconds:g} ms, and one in {slow} takes {slow} times as long.
Until a value of {target:g}; medians of {seeds} searches.
"""
FAULTS = """\
A process of the cluster is killed in the middle of an evaluation, and another
evaluation hangs for three times the time-out of {timeout:g} s. Each value is written to
a file before it is returned.
"""

FIELDS = {"seconds": 1, "evaluations": 0, "generations": 0}
"""Of a search, and the digits of it that are shown."""


@dataclasses.dataclass(frozen=True)
class Command:
    """Measures asynchronous searches on a cluster of processes."""

    output: Path = Path("benchmarks/results/asynchronous")
    """Folder for results.json and table.md."""
    dimension: int = 5
    shares: tuple[float, ...] = (1.0, 0.8, 0.7, 0.6, 0.5)
    """Of the candidates asked for, with which a generation closes."""
    seeds: int = 3
    """Searches with each."""
    seconds: float = 0.03
    """Of an evaluation."""
    target: float = 1e-2
    """The value that ends a search."""
    budget: int = 5_000
    """Evaluations in which it must be reached."""
    workers: int = 2
    """Processes."""
    threads: int = 4
    """Of each."""
    timeout: float = 2.0
    """Seconds after which an evaluation that hangs is given up."""
    evaluations: int = 400
    """Of the search with faults."""


def main(command: Command) -> None:
    """Writes everything, and prints the tables."""
    cli.require_at_least(command, 1, "dimension", "seeds", "budget", "workers")
    cli.require_at_least(command, 1, "threads")
    cli.require_at_least(command, 200, "evaluations")
    cli.require_positive(command, "seconds", "target", "timeout")
    cli.require_fraction(command, "shares")
    cli.require_some(command, "shares")
    command.output.mkdir(parents=True, exist_ok=True)
    content = records.provenance()
    for package in ("dask", "distributed"):
        content["versions"][package] = importlib.metadata.version(package)
    settings = dataclasses.asdict(command) | {"output": str(command.output)}
    content |= {"command": "python -m benchmarks.asynchronous", "settings": settings}
    with cluster(command.workers, command.threads) as client:
        content |= {"faults": faults(command, client)}
    with cluster(command.workers, command.threads) as client:
        content |= {"runs": runs(command, client)}
    records.write_json(command.output / "results.json", content)
    text = page(command, content)
    records.write_text(command.output / "table.md", text)
    print(text)


def faults(command: Command, client: Any) -> dict[str, Any]:
    """One search that loses a process, and waits in vain for an evaluation."""
    found = survived(
        client,
        command.seconds,
        command.timeout,
        command.dimension,
        command.evaluations,
        {5: KILL, 15: HANG},
    )
    progress(f"with faults: {found['status']}, {found['seconds']:.1f} s")
    return found


def runs(command: Command, client: Any) -> list[dict[str, Any]]:
    """Searches that wait for more or for fewer."""
    given = (command.dimension, command.target, command.budget)
    # Compiled before the clock runs.
    for share in (None, min(command.shares)):
        seconds_to(client, share, 0.0, 0, *given)
    found = []
    for share in (None, *command.shares):
        for seed in range(command.seeds):
            found.append(seconds_to(client, share, command.seconds, seed, *given))
            progress(f"{share}: {found[-1]['seconds']:.1f} s")
    return found


def page(command: Command, content: dict[str, Any]) -> str:
    """Two tables."""
    rows = []
    for share in (None, *command.shares):
        own = [run for run in content["runs"] if run["share"] == share]
        failed = sum(run["value"] > command.target for run in own)
        rows.append(
            [
                "`map`, waits for all" if share is None else f"share {share:g}",
                *(
                    f"{np.median([run[field] for run in own]):.{digits}f}"
                    for field, digits in FIELDS.items()
                ),
                f"{len(own) - failed} of {len(own)}",
            ]
        )
    columns = ["workers", *FIELDS, "reached"]
    notes = NOTES.format(
        condition=CONDITION,
        milliseconds=1e3 * command.seconds,
        slow=SLOW,
        **dataclasses.asdict(command),
    )
    found = content["faults"]
    rows_of_faults = [
        ["processes killed", found["killed"]],
        ["evaluations of the budget", found["budget"]],
        ["that have begun", found["evaluations"]],
        ["different values written", found["values"]],
        ["missing, given up", found["missing"]],
        ["least value written", found["least_value"]],
        ["value of the result", found["value_of_result"]],
        ["status", found["status"]],
        ["seconds", f"{found['seconds']:.1f}"],
    ]
    parts = [
        "# Asynchronous search",
        "",
        notes,
        table(columns, rows, numbers=True),
        "## A killed process, and an evaluation that hangs",
        "",
        FAULTS.format(timeout=command.timeout),
        table(["", "search"], rows_of_faults, numbers=True),
        "Written by `python -m benchmarks.asynchronous`.",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    cli.run(main, Command, __doc__)
