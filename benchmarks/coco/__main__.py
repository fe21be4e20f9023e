"""``python -m benchmarks.coco``: search methods on the 24 functions of COCO ``bbob``.

Leaves ``results.json`` (every instance's difference from the optimum) and ``table.md``
in the output folder.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks import cli
from benchmarks.cli import progress, require_at_least, require_some
from benchmarks.coco.methods import METHODS
from benchmarks.coco.problems import GROUPS, Task, differences, one_thread, share
from benchmarks.harness import records
from benchmarks.markdown import table

RIVAL = "cma"
NOTES = """\
Share of 51 targets, from 1e2 to 1e-8 above the optimum, that are reached; mean over the
functions of a group and {instances} instances of each. In brackets the difference from
{rival} and the standard error of it, paired by function and instance. All methods begin
at 0 with a spread of 2, and restart within [−4, 4].

*minimize* is `qiaso_jax.minimize(..., workers=map)` with its defaults; *cma* is pycma
with nine restarts, each with twice the candidates, or as its option *bipop* has it;
scipy's methods are restarted.
"""


@dataclasses.dataclass(frozen=True)
class Command:
    """Compares search methods on COCO's functions."""

    output: Path = Path("benchmarks/results/coco")
    """Folder for results.json and table.md."""
    dimensions: tuple[int, ...] = (5, 20)
    methods: tuple[str, ...] = ("minimize", "cma")
    """See benchmarks/coco/methods.py."""
    instances: tuple[int, int] = (1, 15)
    """The first and the last."""
    evaluations: tuple[int, ...] = (100, 1000)
    """Times the dimension; the last one is the budget."""
    processes: int = 2


def main(command: Command) -> None:
    """Writes everything, and prints the table."""
    require_at_least(command, 1, "processes", "instances")
    if command.instances[0] > command.instances[1]:
        raise cli.UserError(
            "--instances must be the first and the last one, got "
            f"{command.instances[0]} {command.instances[1]}."
        )
    require_some(command, "dimensions", "methods", "evaluations")
    unknown = [name for name in command.methods if name not in METHODS]
    if unknown:
        raise cli.UserError(
            f"--methods must be among {', '.join(map(repr, METHODS))}; got {unknown}."
        )
    command.output.mkdir(parents=True, exist_ok=True)
    first, last = command.instances
    tasks = [
        Task(
            method,
            dimension,
            function,
            tuple(range(first, last + 1)),
            max(command.evaluations) * dimension,
            [times * dimension for times in sorted(command.evaluations)],
        )
        for dimension in command.dimensions
        for method in command.methods
        for function in GROUPS["all"]
    ]
    found = measured(tasks, command.processes)
    content = records.provenance()
    for package in ("cma", "scipy", "coco-experiment"):
        content["versions"][package] = importlib.metadata.version(package)
    runs = [
        task._asdict() | {"differences": difference}
        for task, difference in zip(tasks, found, strict=True)
    ]
    settings = dataclasses.asdict(command) | {"output": str(command.output)}
    content |= {"command": "python -m benchmarks.coco", "settings": settings}
    content |= {"runs": runs}
    records.write_json(command.output / "results.json", content)
    text = page(command, tasks, found)
    records.write_text(command.output / "table.md", text)
    print(text)


def measured(tasks: list[Task], processes: int) -> list[list[list[float]]]:
    """The results of all tasks, each in one of some processes with a thread each."""
    context = multiprocessing.get_context("spawn")
    found = []
    with ProcessPoolExecutor(processes, context, initializer=one_thread) as pool:
        for task, result in zip(tasks, pool.map(differences, tasks), strict=True):
            shares = [share(row[-1]) for row in result]
            progress(
                f"{task.dimension}-D f{task.function} {task.method}: "
                f"{np.mean(shares):.2f}"
            )
            found.append(result)
    return found


def page(
    command: Command, tasks: list[Task], found: Sequence[Sequence[Sequence[float]]]
) -> str:
    """A table for each dimension and number of evaluations."""
    instances = command.instances[1] - command.instances[0] + 1
    parts = ["# COCO bbob", "", NOTES.format(instances=instances, rival=RIVAL)]
    shares = {
        (task.dimension, task.method, task.function): np.array(
            [[share(x) for x in row] for row in result]
        )
        for task, result in zip(tasks, found, strict=True)
    }
    for dimension in command.dimensions:
        for i, times in enumerate(sorted(command.evaluations)):
            rows = []
            for group, functions in GROUPS.items():
                each = {
                    method: np.concatenate(
                        [shares[dimension, method, f][:, i] for f in functions]
                    )
                    for method in command.methods
                }
                rows.append([group, *(cell(x, each.get(RIVAL)) for x in each.values())])
            parts += [
                f"## {dimension}-D, {times:,}·D evaluations",
                "",
                table(["", *command.methods], rows, numbers=True),
            ]
    parts.append("Written by `python -m benchmarks.coco`.")
    return "\n".join(parts) + "\n"


def cell(shares: np.ndarray, rival: np.ndarray | None) -> str:
    """The mean, and the paired difference."""
    mean = f"{shares.mean():.3f}"
    if rival is None or rival is shares:
        return mean
    apart = shares - rival
    error = apart.std(ddof=1) / np.sqrt(apart.size) if apart.size > 1 else np.nan
    return f"{mean} ({apart.mean():+.3f} ± {error:.3f})"


if __name__ == "__main__":
    cli.run(main, Command, __doc__)
