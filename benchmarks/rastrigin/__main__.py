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
from typing import Any

import numpy as np
import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.cli import UserError
from benchmarks.harness import records
from benchmarks.rastrigin import methods
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
- *QIASO, working*: `minimize` with its defaults, sigma a third of the width of the box.
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


def main(command: Command) -> int:
    """Runs ``command``; returns the exit status of the process."""
    console = Console()
    try:
        run(command, console)
    except UserError as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        return 1
    return 0


def run(command: Command, console: Console) -> None:
    """Writes and prints everything; raises ``UserError`` for what a user can mend."""
    least = max(CMA_POPULATIONS)
    if command.seeds < 1:
        raise UserError(f"--seeds must be at least 1, got {command.seeds}")
    if not command.evaluations or min(command.evaluations) < least:
        raise UserError(
            f"--evaluations must each be at least {least}, the largest population, "
            f"got {list(command.evaluations)}"
        )
    command.output.mkdir(parents=True, exist_ok=True)
    starts = methods.starting_points(command.seeds)
    shown, everything = [], []
    for budget in command.evaluations:
        for candidates in compared(budget, starts, console):
            best = min(candidates, key=lambda candidate: candidate.quartiles[1])
            shown.append(best)
            everything += [(each, each is best) for each in candidates]
    write_results(command, everything)
    write_table(command, shown)
    print_table(console, shown)


def compared(budget: int, starts: np.ndarray, console: Console) -> Iterator[list[Run]]:
    """Every row of the table, as the settings among which the best is shown."""
    yield [methods.faithful(budget, starts)]
    working = methods.working(budget, starts)
    yield [working]
    same_population = working.settings["population"]
    rows: list[list[Callable[..., Run]]] = [
        [methods.random_search],
        *(
            [partial(methods.cma_es, population=population)]
            for population in (*CMA_POPULATIONS, same_population)
        ),
        [partial(methods.snes, population=size) for size in SNES_POPULATIONS],
        [
            partial(methods.open_es, population=size, rate=rate, last=last)
            for size in OPEN_ES_POPULATIONS
            for rate in OPEN_ES_RATES
            for last in OPEN_ES_LAST_SIGMAS
        ],
    ]
    for row in rows:
        runs = [method(budget, starts) for method in row]
        seconds = sum(each.seconds for each in runs)
        console.print(f"{budget:,}: {runs[0].method}, {seconds:.0f} s", style="dim")
        yield runs


def cells(run: Run) -> list[str]:
    """A row of the table."""
    return [
        run.method,
        str(run.settings["population"]),
        f"{run.evaluations:,}",
        *(f"{value:.3g}" for value in run.quartiles),
        f"{run.solved}/{len(run.values)}",
        f"{run.cpu_seconds:.1f}",
    ]


def print_table(console: Console, runs: list[Run]) -> None:
    """The table on the terminal."""
    title = "30-D Rastrigin: the best value found"
    table = Table(title=title, box=box.SIMPLE, pad_edge=False, collapse_padding=True)
    for index, column in enumerate(COLUMNS):
        table.add_column(column, justify="right" if index else "left")
    budget = runs[0].budget
    for each in runs:
        if each.budget != budget:
            table.add_section()
            budget = each.budget
        table.add_row(*cells(each))
    console.print(table)


def write_table(command: Command, runs: list[Run]) -> None:
    """The table as Markdown."""
    lines = ["# 30-D Rastrigin at equal evaluations", ""]
    for budget in command.evaluations:
        lines += [f"## {budget:,} evaluations", "", _row(COLUMNS)]
        lines += [_row(["---", *["---:"] * (len(COLUMNS) - 1)])]
        lines += [_row(cells(each)) for each in runs if each.budget == budget]
        lines += [""]
    lines += [
        NOTES.format(seeds=command.seeds),
        "Written by `python -m benchmarks.rastrigin`.",
        "",
    ]
    records.write_text(command.output / "table.md", "\n".join(lines))


def _row(texts: Any) -> str:
    return "| " + " | ".join(texts) + " |"


def write_results(command: Command, runs: list[tuple[Run, bool]]) -> None:
    """Every value of every seed, and what produced them."""
    content = records.provenance()
    content["versions"]["cma"] = importlib.metadata.version("cma")
    content |= {
        "command": "python -m benchmarks.rastrigin",
        "dimension": methods.DIMENSION,
        "box": [-methods.HALF_WIDTH, methods.HALF_WIDTH],
        "seeds": list(range(command.seeds)),
        "runs": [
            dataclasses.asdict(each)
            | {"quartiles": each.quartiles, "solved": each.solved, "shown": shown}
            for each, shown in runs
        ],
    }
    records.write_json(command.output / "results.json", content)


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Command)))
