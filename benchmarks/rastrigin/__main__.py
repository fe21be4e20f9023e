"""``python -m benchmarks.rastrigin``: search methods on the 30-D Rastrigin function.

Leaves ``table.md`` and ``results.json`` (every seed's value) in the output folder. The
paper's Figures 2, 5 and 6 are ``python -m benchmarks.paper figure2`` and so on.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

import qiaso_jax
from benchmarks import cli
from benchmarks.cli import progress, require_at_least, require_some
from benchmarks.harness import records
from benchmarks.markdown import table
from benchmarks.rastrigin import methods, rivals
from benchmarks.rastrigin.methods import Run

CMA_POPULATIONS = (30, 300)
SNES_POPULATIONS = (15, 30, 100, 300)
OPEN_ES_POPULATIONS = (30, 100, 300)
OPEN_ES_RATES = (0.01, 0.03, 0.1)
OPEN_ES_LAST_SIGMAS = (1e-3, 1e-2)

COLUMNS = ("method", "K", "evals", "Q1", "median", "Q3", "basin", "CPU s")

NOTES = """\
Median and quartiles (Q1, Q3) over {seeds} seeds of the best value found in so many
evaluations (evals), K at a time; the minimum is 0. The start is uniform in
[-5.12, 5.12]^30, the same for all methods; only random search is kept in that box.

- *QIASO, faithful*: `qiaso(**PAPER)`.
- *QIASO, working*: `minimize` with `covariance=None`, sigma a third of the width of the
  box.
- *cma*: pycma, sigma0 a quarter of the width. When one of its own criteria stops it, it
  restarts at the same population from another point of the box, until the budget is
  spent. The last of its rows has the population of `minimize`.
- *evosax SNES, Open_ES*: sigma as for cma; SNES at the population, Open_ES (Adam at a
  cosine rate, sigma annealed geometrically) at the population, rate and last sigma of
  the lowest median at that budget, chosen on these very seeds. `results.json` has all.
- *basin*: seeds that found the global one, by a value below 0.5; all other minima are
  above 0.99.
- *CPU s*: seconds of all cores, for all seeds, with compilation, which `minimize` does
  again for every seed.
"""


@dataclasses.dataclass(frozen=True)
class Command:
    """Compares search methods on the 30-D Rastrigin function."""

    output: Path = Path("benchmarks/results/rastrigin")
    """Folder for results.json and table.md."""
    seeds: int = 10
    """Starts, the same for every method."""
    evaluations: tuple[int, ...] = (30_000, 300_000)
    """Budgets, each for every method."""


def main(command: Command) -> None:
    """Writes everything, and prints the table."""
    require_at_least(command, 1, "seeds")
    require_some(command, "evaluations")
    require_at_least(command, max(CMA_POPULATIONS), "evaluations")
    command.output.mkdir(parents=True, exist_ok=True)
    starts = methods.starting_points(command.seeds)
    shown, everything = [], []
    for budget in command.evaluations:
        for candidates in compared(budget, starts):
            best = min(candidates, key=lambda candidate: candidate.quartiles[1])
            shown.append(best)
            everything += [
                each.record() | {"shown": each is best} for each in candidates
            ]
    content = records.provenance()
    content["versions"]["cma"] = importlib.metadata.version("cma")
    content |= {
        "command": "python -m benchmarks.rastrigin",
        "dimension": methods.DIMENSION,
        "box": [-methods.HALF_WIDTH, methods.HALF_WIDTH],
        "seeds": list(range(command.seeds)),
        "runs": everything,
    }
    records.write_json(command.output / "results.json", content)
    text = page(shown, command.seeds)
    records.write_text(command.output / "table.md", text)
    print(text)


def compared(budget: int, starts: np.ndarray) -> Iterator[list[Run]]:
    """Every row of the table, as the settings among which the best is shown."""
    population = methods.PAPER["num_candidates"]
    paper = partial(qiaso_jax.qiaso, **methods.PAPER)
    yield [
        methods.transformed("QIASO, faithful", {}, paper, budget, population, starts)
    ]
    working = methods.minimised("QIASO, working", budget, starts, covariance=None)
    yield [working]
    rows: list[list[Callable[..., Run]]] = [
        [rivals.random_search],
        *(
            [partial(rivals.cma_es, population=size)]
            for size in (*CMA_POPULATIONS, working.settings["population"])
        ),
        [partial(rivals.snes, population=size) for size in SNES_POPULATIONS],
        [
            partial(rivals.open_es, population=size, rate=rate, last=last)
            for size in OPEN_ES_POPULATIONS
            for rate in OPEN_ES_RATES
            for last in OPEN_ES_LAST_SIGMAS
        ],
    ]
    for row in rows:
        runs = [method(budget, starts) for method in row]
        seconds = sum(each.seconds for each in runs)
        progress(f"{budget:,}: {runs[0].method}, {seconds:.0f} s")
        yield runs


def page(runs: list[Run], seeds: int) -> str:
    """A table for each budget."""
    parts = ["# 30-D Rastrigin at equal evaluations", ""]
    for budget in dict.fromkeys(run.budget for run in runs):
        rows = [
            [run.method, *run.cells(), f"{run.cpu_seconds:.1f}"]
            for run in runs
            if run.budget == budget
        ]
        parts += [f"## {budget:,} evaluations", "", table(COLUMNS, rows, numbers=True)]
    parts += [NOTES.format(seeds=seeds), "Written by `python -m benchmarks.rastrigin`."]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    cli.run(main, Command, __doc__)
