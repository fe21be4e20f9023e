"""``python -m benchmarks.coco.noise``: which point to take from a noisy search.

Leaves ``noise.json`` (every instance's true difference from the optimum) and
``noise.md`` in the output folder.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import itertools
import multiprocessing
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cma
import cocoex
import numpy as np

import qiaso_jax
from benchmarks import cli
from benchmarks.cli import progress, require_at_least, require_some
from benchmarks.coco.problems import one_thread
from benchmarks.harness import records
from benchmarks.markdown import table

SIGMA = 2.0
FUNCTIONS = {1: "sphere", 8: "Rosenbrock", 10: "ellipsoid", 15: "Rastrigin"}
NOISES = ("additive", "multiplicative")
POINTS = ("minimize x", "minimize mean", "noisy mean", "cma xbest", "cma xfavorite")
NOTES = """\
True value less the optimum: median (first to third quartile) over {instances} instances
of functions of COCO `bbob`, after {evaluations:,}·D noisy evaluations from 0 with a
spread of 2. Additive noise is 𝒩(0, 1); multiplicative noise has the difference from the
optimum times exp(𝒩(0, 1)).

`x` of `minimize` and *xbest* of pycma are the point with the least value that was seen;
`mean` and *xfavorite* are the mean of the distribution that is searched with, and
*noisy mean* is `mean` of `minimize(..., noisy=True)`. Last, in how many instances
`mean` has a lower true value than `x`, and *noisy mean* than `mean`.
"""


class Task(NamedTuple):
    """All methods on all instances of a noisy function.

    Attributes:
      dimension: of the function.
      function: a key of ``FUNCTIONS``.
      noise: one of ``NOISES``.
      instances: shifted and rotated in different ways.
      evaluations: of each method.
    """

    dimension: int
    function: int
    noise: str
    instances: Sequence[int]
    evaluations: int


@dataclasses.dataclass(frozen=True)
class Command:
    """Compares the points that a search under noise returns."""

    output: Path = Path("benchmarks/results/coco")
    """Folder for noise.json and noise.md."""
    dimensions: tuple[int, ...] = (5,)
    instances: int = 15
    evaluations: int = 1000
    """Times the dimension."""
    processes: int = 2


class Noisy:
    """A function with noise of its own generator."""

    def __init__(self, problem: cocoex.BareProblem, noise: str, seed: int) -> None:
        self.problem = problem
        self.optimum = problem.best_value()
        self.is_additive = noise == "additive"
        self.rng = np.random.default_rng(seed)

    def true(self, x: np.ndarray) -> float:
        """Value at ``x`` less the optimum."""
        return float(self.problem(np.asarray(x))) - self.optimum

    def __call__(self, x: np.ndarray) -> float:
        """The value at ``x`` with noise."""
        z = self.rng.standard_normal()
        if self.is_additive:
            return self.optimum + self.true(x) + z
        return self.optimum + self.true(x) * np.exp(z)


def main(command: Command) -> None:
    """Writes everything, and prints the table."""
    require_at_least(command, 1, "processes", "instances", "evaluations")
    require_at_least(command, 2, "dimensions")
    require_some(command, "dimensions")
    command.output.mkdir(parents=True, exist_ok=True)
    instances = tuple(range(1, command.instances + 1))
    tasks = [
        Task(dimension, function, noise, instances, command.evaluations * dimension)
        for dimension, function, noise in itertools.product(
            command.dimensions, FUNCTIONS, NOISES
        )
    ]
    context = multiprocessing.get_context("spawn")
    found = []
    with ProcessPoolExecutor(
        command.processes, context, initializer=one_thread
    ) as pool:
        for task, result in zip(tasks, pool.map(differences, tasks), strict=True):
            progress(f"{task.dimension}-D f{task.function} {task.noise}")
            found.append(result)
    content = records.provenance()
    for package in ("cma", "coco-experiment"):
        content["versions"][package] = importlib.metadata.version(package)
    settings = dataclasses.asdict(command) | {"output": str(command.output)}
    content |= {"command": "python -m benchmarks.coco.noise", "settings": settings}
    content["runs"] = [
        task._asdict() | {"differences": result}
        for task, result in zip(tasks, found, strict=True)
    ]
    records.write_json(command.output / "noise.json", content)
    text = page(tasks, found)
    records.write_text(command.output / "noise.md", text)
    print(text)


def differences(task: Task) -> dict[str, list[float]]:
    """True value less the optimum at each of ``POINTS``, for each instance."""
    found: dict[str, list[float]] = {name: [] for name in POINTS}
    for instance in task.instances:
        seed = 1000 * task.function + instance
        problem = cocoex.BareProblem("bbob", task.function, task.dimension, instance)
        start = np.zeros(task.dimension)
        result, told = (
            qiaso_jax.minimize(
                Noisy(problem, task.noise, seed),
                start,
                sigma=SIGMA,
                max_evaluations=task.evaluations,
                workers=map,
                noisy=noisy,
                key=seed,
            )
            for noisy in (False, True)
        )
        theirs = Noisy(problem, task.noise, seed)
        options = {"verbose": -9, "maxfevals": task.evaluations, "seed": seed}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            best, search = cma.fmin2(theirs, start, SIGMA, options)
        points = (result.x, result.mean, told.mean, best, search.result.xfavorite)
        for name, point in zip(POINTS, points, strict=True):
            found[name].append(theirs.true(point))
    return found


def page(tasks: Sequence[Task], found: Sequence[Mapping[str, Sequence[float]]]) -> str:
    """A table for each dimension."""
    first = tasks[0]
    notes = NOTES.format(
        instances=len(first.instances),
        evaluations=first.evaluations // first.dimension,
    )
    parts = ["# Noise", "", notes]
    for dimension in dict.fromkeys(task.dimension for task in tasks):
        rows = [
            [
                f"{FUNCTIONS[task.function]} f{task.function}, {task.noise}",
                *(quartiles(result[name]) for name in POINTS),
                *(
                    f"{lower(result, *pair)}/{len(task.instances)}"
                    for pair in itertools.pairwise(POINTS[:3])
                ),
            ]
            for task, result in zip(tasks, found, strict=True)
            if task.dimension == dimension
        ]
        columns = ["", *POINTS, "mean lower", "noisy lower"]
        parts += [f"## {dimension}-D", "", table(columns, rows, numbers=True)]
    parts.append("Written by `python -m benchmarks.coco.noise`.")
    return "\n".join(parts) + "\n"


def lower(found: Mapping[str, Sequence[float]], first: str, second: str) -> int:
    """In how many searches the second point is the better one."""
    return int(np.sum(np.less(found[second], found[first])))


def quartiles(values: Sequence[float]) -> str:
    """The median, and the first and the third quartile."""
    first, median, third = np.percentile(values, [25, 50, 75])
    return f"{median:.2g} ({first:.2g} to {third:.2g})"


if __name__ == "__main__":
    cli.run(main, Command, __doc__)
