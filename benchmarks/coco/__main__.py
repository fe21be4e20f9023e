"""``python -m benchmarks.coco``: search methods on the functions of COCO.

Leaves ``results.json`` (every instance's difference from the optimum), ``table.md``
and ``ecdf.svg`` in the output folder.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from benchmarks import cli
from benchmarks.cli import progress, require_at_least, require_some
from benchmarks.coco import ecdf
from benchmarks.coco.methods import METHODS
from benchmarks.coco.problems import SUITES, share
from benchmarks.coco.tasks import Task, measured
from benchmarks.harness import records
from benchmarks.markdown import table
from qiaso_jax import plot

RIVAL = "cma"
PER_DECADE = 5
"""So many numbers of evaluations in a decade are noted for the figure."""

NOTES = """\
Share of 51 targets, from 1e2 to 1e-8 above the optimum, that are reached; mean over the
functions of a group and {instances} instances of each. In brackets the difference from
{rival} and the standard error of it, paired by function and instance. All methods begin
in the middle of the box that the optima lie in, in most suites [−5, 5], with a spread
of a fifth of its width, restart within two spreads of there, and end when all targets
are reached.

*minimize* is `qiaso_jax.minimize(..., workers=map)` with its defaults; *cma* is pycma
with nine restarts, each with twice the candidates, or as its option *bipop* has it;
evosax's methods have 4 + 3 log D candidates and no restarts; scipy's methods are
restarted.
"""
MORE_NOTES = {
    "bbob": "",
    "bbob-noisy": """
A target is reached by a point whose value without noise is: the methods do not see it.
f116 to f118 and f125 to f127 are left out, as COCO does not tell theirs. Noise is of
one generator for all functions that a process searches: no two runs are the same.
""",
    "bbob-largescale": "",
    "bbob-mixint": """
Of five coordinates four are whole numbers, which *minimize*, *cma* and *differential
evolution* are told, and the bounds; COCO rounds what the others propose.
""",
}


@dataclasses.dataclass(frozen=True)
class Command:
    """Compares search methods on COCO's functions."""

    output: Path = Path("benchmarks/results/coco")
    """Folder for results.json, table.md and the figure."""
    suite: Literal["bbob", "bbob-noisy", "bbob-largescale", "bbob-mixint"] = "bbob"
    functions: tuple[int, ...] = ()
    """None for all."""
    dimensions: tuple[int, ...] = (5, 20)
    methods: tuple[str, ...] = ("minimize", RIVAL)
    """See benchmarks/coco/methods.py."""
    instances: tuple[int, int] = (1, 15)
    """The first and the last."""
    evaluations: tuple[int, ...] = (100, 1000)
    """Times the dimension; the last one is the budget."""
    processes: int = 2
    again: tuple[str, ...] = ()
    """Of the methods, those to measure; runs of the others are kept, as results.json in
    the output folder has them. None for all."""


def main(command: Command) -> None:
    """Writes everything, and prints the table."""
    require_at_least(command, 1, "processes", "instances", "evaluations")
    if command.instances[0] > command.instances[1]:
        raise cli.UserError(
            "--instances must be the first and the last one, got "
            f"{command.instances[0]} {command.instances[1]}."
        )
    require_some(command, "dimensions", "methods", "evaluations")
    suite = SUITES[command.suite]
    every = suite.groups["all"]
    _require_among("methods", command.methods, METHODS)
    _require_among("dimensions", command.dimensions, suite.dimensions)
    _require_among("functions", command.functions, every)
    command.output.mkdir(parents=True, exist_ok=True)
    first, last = command.instances
    tasks = [
        Task(
            command.suite,
            method,
            dimension,
            function,
            tuple(range(first, last + 1)),
            tuple(reports(dimension, command.evaluations)),
        )
        for dimension in command.dimensions
        for method in command.methods
        for function in command.functions or every
    ]
    _require_among("again", command.again, command.methods)
    kept = kept_runs(command, tasks) if command.again else Kept({}, {})
    due = [task for task in tasks if task not in kept.runs]
    found = dict(kept.runs)
    for task, differences in zip(due, measured(due, command.processes), strict=True):
        reached = np.mean([share(row[-1]) for row in differences])
        progress(f"{task.dimension}-D f{task.function} {task.method}: {reached:.2f}")
        found[task] = differences
    runs = [task._asdict() | {"differences": found[task]} for task in tasks]
    content = records.provenance()
    for package in ("cma", "scipy", "coco-experiment"):
        content["versions"][package] = importlib.metadata.version(package)
    settings = dataclasses.asdict(command) | {"output": str(command.output)}
    content |= {"command": "python -m benchmarks.coco", "settings": settings}
    content |= {"kept": kept.written} if kept.written else {}
    content |= {"runs": runs}
    records.write_text(command.output / "results.json", lines(content))
    text = page(content)
    records.write_text(command.output / "table.md", text)
    plot.save(ecdf.figure(content, ecdf.stored()), command.output / "ecdf")
    print(text)


class Kept(NamedTuple):
    """Runs that are not measured anew.

    Attributes:
      runs: differences, by task.
      written: by method, when, and by what revision, they were measured.
    """

    runs: Mapping[Task, list[list[float]]]
    written: Mapping[str, Mapping[str, str]]


def kept_runs(command: Command, tasks: Sequence[Task]) -> Kept:
    """Those of the methods that are not to be measured again."""
    path = command.output / "results.json"
    if not path.exists():
        raise cli.UserError(f"--again needs the other methods' runs, in {path}.")
    content = json.loads(path.read_text())
    stored = {}
    for run in content["runs"]:
        instances, every = tuple(run["instances"]), tuple(run["reports"])
        task = Task(**{key: run[key] for key in Task._fields})
        task = task._replace(instances=instances, reports=every)
        stored[task] = run["differences"]
    own = {key: content[key] for key in ("date", "revision")}
    runs, written = {}, {}
    for task in tasks:
        if task.method in command.again:
            continue
        if task not in stored:
            raise cli.UserError(
                f"--again {' '.join(command.again)}: {path} has no run of "
                f"{task.method} on f{task.function} in {task.dimension}-D with these "
                "instances and evaluations, which could be kept."
            )
        runs[task] = stored[task]
        written[task.method] = content.get("kept", {}).get(task.method, own)
    return Kept(runs, written)


def _require_among(name: str, given: Sequence[Any], known: Collection[Any]) -> None:
    unknown = [each for each in given if each not in known]
    if unknown:
        raise cli.UserError(
            f"{cli.option(name)} must be among {', '.join(map(repr, known))}; got "
            f"{unknown}."
        )


def reports(dimension: int, evaluations: Sequence[int]) -> list[int]:
    """Evaluations after which values are noted: those of tables, and of the figure."""
    most = max(evaluations)
    number = round(PER_DECADE * np.log10(most))
    times = {*np.geomspace(1, most, number + 1).tolist(), *map(float, evaluations)}
    return sorted({round(dimension * each) for each in times})


def lines(content: Mapping[str, Any]) -> str:
    """As JSON with a line for each run."""
    runs = ",\n".join("    " + json.dumps(run) for run in content["runs"])
    rest = json.dumps({**content, "runs": []}, indent=2)
    return rest.removesuffix("[]\n}") + f"[\n{runs}\n  ]\n}}\n"


def page(content: Mapping[str, Any]) -> str:
    """A table for each dimension and number of evaluations."""
    settings, runs = content["settings"], content["runs"]
    first, last = settings["instances"]
    suite = settings["suite"]
    dimensions = ", ".join(map(str, settings["dimensions"]))
    parts = [f"# COCO {suite}, {dimensions}-D: {', '.join(settings['methods'])}", ""]
    parts += [NOTES.format(instances=last - first + 1, rival=RIVAL) + MORE_NOTES[suite]]
    for dimension in settings["dimensions"]:
        here = [run for run in runs if run["dimension"] == dimension]
        for times in sorted(settings["evaluations"]):
            rows = []
            for group, functions in SUITES[suite].groups.items():
                each = {
                    method: np.array(
                        [
                            share(row[run["reports"].index(times * dimension)])
                            for run in here
                            if run["method"] == method and run["function"] in functions
                            for row in run["differences"]
                        ]
                    )
                    for method in settings["methods"]
                }
                if any(x.size for x in each.values()):
                    cells = (cell(x, each.get(RIVAL)) for x in each.values())
                    rows.append([group, *cells])
            parts += [
                f"## {dimension}-D, {times:,}·D evaluations",
                "",
                table(["", *settings["methods"]], rows, numbers=True),
            ]
    for method, written in content.get("kept", {}).items():
        day, revision = written["date"][:10], written["revision"]
        parts += [f"Runs of {method} are those of {day}, revision {revision}.", ""]
    typed = cli.typed("benchmarks.coco", Command, settings)
    parts.append(f"Written by `{typed}`.")
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
