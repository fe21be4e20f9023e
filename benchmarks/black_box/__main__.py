"""``python -m benchmarks.black_box``: search methods on what people optimise.

Leaves ``results.json`` (every seed's measures) and ``table.md`` in the output folder,
both written anew after each method.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks import cli
from benchmarks.black_box import hyperparameters, pendulum, shifted
from benchmarks.black_box.problem import Problem
from benchmarks.black_box.rivals import FULL_UP_TO, METHODS, Method, found
from benchmarks.cli import progress, require_at_least, require_positive, require_some
from benchmarks.harness import records
from benchmarks.harness.stopwatch import Stopwatch
from benchmarks.markdown import table

TIMES = 100
"""Evaluations of the shifted functions for each dimension."""
GROUPS: dict[str, tuple[Problem, ...]] = {
    "pendulum": (pendulum.PROBLEM,),
    "hyper-parameters": (hyperparameters.PROBLEM,),
    "10-D": shifted.problems(10, 0.0, TIMES),
    "10-D, noise": shifted.problems(10, shifted.NOISE, TIMES),
    "30-D": shifted.problems(30, 0.0, TIMES),
    "30-D, noise": shifted.problems(30, shifted.NOISE, TIMES),
}
BOTH_POINTS = ("pendulum", "10-D, noise", "30-D, noise")
"""Tables with the mean beside the best point seen."""
UNTUNED = 1000
"""The first seed that is reported; those below are for tuning."""

NOTES = """\
Median (first to third quartile) over {seeds} seeds, at equal evaluations. Every method
has one setting for each problem, the best of three on other seeds ({tuning} of them):
the spread at the start, {spreads} of the width of the box, or the members of
differential evolution, {members}; random search has none. All others begin at the same
point, which is one of those members. The box bounds hyper-parameters; elsewhere only
these two methods, and what restarts, keep to it.

*Best seen* is the point with the least value that the method saw, and *mean* that of
the distribution it searched with in the end: `result.mean` of `minimize`, *xfavorite*
of pycma. *minimize* is `qiaso_jax.minimize(..., vectorized=True)` with its defaults,
*cma* pycma with nine restarts, each with twice the candidates; scipy's methods are
restarted, and evosax's, which are not, have as many candidates as the first runs of
these two. Of more than {full} coordinates cma, evosax CMA-ES and, by its defaults,
`minimize` learn variances alone.
"""
TEXTS = {
    "pendulum": f"""\
A perceptron of {pendulum.SIZE:,} weights swings up a pendulum whose torque is limited:
mean return over {pendulum.TRAINING} angles at the start, which is what is searched for,
and over {pendulum.HELD_OUT} others. More is better.""",
    "hyper-parameters": f"""\
Of kernel ridge regression of the digits, from {hyperparameters.IMAGES} images: R² in
{hyperparameters.FOLDS}-fold cross-validation, which is what is searched for, and on the
other images. More is better.""",
    "10-D": "Value less the optimum, of shifted and rotated functions.",
    "10-D, noise": f"""\
Likewise, found from values with noise of standard deviation {shifted.NOISE:g}.""",
}
TEXTS |= {"30-D": TEXTS["10-D"], "30-D, noise": TEXTS["10-D, noise"]}


@dataclasses.dataclass(frozen=True)
class Command:
    """Compares search methods on other things that people optimise."""

    output: Path = Path("benchmarks/results/black_box")
    """Folder for results.json and table.md."""
    groups: tuple[str, ...] = tuple(GROUPS)
    """Of problems, a table each."""
    methods: tuple[str, ...] = tuple(METHODS)
    """See benchmarks/black_box/rivals.py."""
    seeds: int = 15
    """That are reported."""
    tuning_seeds: int = 3
    """Others, by which each method's setting is chosen."""
    budget: float = 1.0
    """Evaluations, in units of the problem's own number."""


def main(command: Command) -> None:
    """Writes everything, and prints the tables."""
    require_at_least(command, 1, "seeds", "tuning_seeds")
    require_positive(command, "budget")
    for name, known in (("groups", GROUPS), ("methods", METHODS)):
        require_some(command, name)
        unknown = [each for each in getattr(command, name) if each not in known]
        if unknown:
            raise cli.UserError(
                f"{cli.option(name)} must be among {', '.join(map(repr, known))}; got "
                f"{unknown}."
            )
    command.output.mkdir(parents=True, exist_ok=True)
    content = records.provenance()
    for package in ("cma", "scikit-learn", "scipy"):
        content["versions"][package] = importlib.metadata.version(package)
    settings = dataclasses.asdict(command) | {"output": str(command.output)}
    content |= {"command": "python -m benchmarks.black_box", "settings": settings}
    content["runs"] = []
    for group in command.groups:
        for problem in GROUPS[group]:
            size = problem.make(0).start.size
            for name in command.methods:
                if not METHODS[name].suits(size):
                    continue
                run = {"group": group, "problem": problem.name, "method": name}
                run |= tuned(command, problem, METHODS[name])
                content["runs"].append(run)
                progress(f"{group}, {problem.name}, {name}: {run['seconds']:.0f} s")
                records.write_json(command.output / "results.json", content)
                text = page(content)
                records.write_text(command.output / "table.md", text)
    print(page(content))


def tuned(command: Command, problem: Problem, method: Method) -> dict[str, Any]:
    """What a method finds from every seed, with the setting that the others choose."""
    budget = max(1, round(command.budget * problem.evaluations))
    watch = Stopwatch()

    def measured(setting: Any, seeds: Sequence[int]) -> list[Any]:
        # With threads, small eigendecompositions take many times the CPU seconds.
        with threadpool_limits(1):
            return [
                found(method, problem.make(seed), budget, setting, seed)
                for seed in seeds
            ]

    trials = {
        setting: median(problem, measured(setting, range(command.tuning_seeds)))
        for setting in method.settings
    }
    best = min(trials, key=lambda setting: problem.sign * trials[setting])
    seeds = range(UNTUNED, UNTUNED + command.seeds)
    return {
        "setting": best,
        "tuning": [{"setting": key, "median": value} for key, value in trials.items()],
        "evaluations": budget,
        "found": measured(best, seeds),
        "seconds": watch.read()[0],
    }


def median(problem: Problem, results: Sequence[dict[str, dict[str, float]]]) -> float:
    """Of the first measure, at whichever of the points it is better."""
    medians = [
        np.median([next(iter(result[point].values())) for result in results])
        for point in results[0]
    ]
    return float(min(medians, key=lambda value: problem.sign * value))


def page(content: dict[str, Any]) -> str:
    """A table for each group."""
    settings = content["settings"]
    notes = NOTES.format(
        seeds=settings["seeds"],
        tuning=settings["tuning_seeds"],
        spreads=listed(METHODS["minimize"].settings),
        members=listed(METHODS["differential evolution"].settings),
        full=FULL_UP_TO,
    )
    parts = ["# What people optimise", "", notes]
    for group in dict.fromkeys(run["group"] for run in content["runs"]):
        runs = [run for run in content["runs"] if run["group"] == group]
        numbers = dict.fromkeys(run["evaluations"] for run in runs)
        evaluations = " and ".join(f"{number:,}" for number in numbers)
        parts += [f"## {group}", "", f"{TEXTS[group]} {evaluations} evaluations.", ""]
        parts.append(table(*cells(group, runs), numbers=True))
    parts.append("Written by `python -m benchmarks.black_box`.")
    return "\n".join(parts) + "\n"


def cells(
    group: str, runs: Sequence[dict[str, Any]]
) -> tuple[list[str], list[list[str]]]:
    """The columns and the rows of a group's table."""
    points = ("best seen", "mean") if group in BOTH_POINTS else ("best seen",)
    columns = {
        (run["problem"], measure): None
        for run in runs
        for measure in run["found"][0]["best seen"]
    }
    of = {(run["method"], run["problem"]): run["found"] for run in runs}
    rows = []
    for method in dict.fromkeys(run["method"] for run in runs):
        for point in points:
            row = [
                quartiles([result[point][measure] for result in of[method, problem]])
                for problem, measure in columns
                if (method, problem) in of and point in of[method, problem][0]
            ]
            label = method if len(points) == 1 else f"{method}, {point}"
            if row:
                rows.append([label, *row, *[""] * (len(columns) - len(row))])
    one_problem = len({problem for problem, _ in columns}) == 1
    heads = [measure if one_problem else problem for problem, measure in columns]
    return ["", *heads], rows


def quartiles(values: Sequence[float]) -> str:
    """The median, and the first and the third quartile."""
    first, middle, third = np.percentile(values, [25, 50, 75])
    return f"{middle:.3g} ({first:.3g} to {third:.3g})"


def listed(numbers: Sequence[float]) -> str:
    """As in "1, 2 or 3"."""
    *others, last = (f"{number:g}" for number in numbers)
    return f"{', '.join(others)} or {last}"


if __name__ == "__main__":
    cli.run(main, Command, __doc__)
