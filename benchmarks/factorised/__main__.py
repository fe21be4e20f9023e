"""``python -m benchmarks.factorised``: a superposition of every block for itself.

Leaves ``results.json`` (every seed's value) and ``table.md`` in the output folder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console

from benchmarks.cli import UserError
from benchmarks.factorised import methods
from benchmarks.factorised.methods import Cost, Training
from benchmarks.harness import records
from benchmarks.rastrigin.methods import DIMENSION, Run, starting_points

LEARNING_RATES = (0.003, 0.01, 0.03, 0.1)
MEASUREMENTS = 300

NOTES = """\
*Searches*: median and quartiles over {seeds} seeds of the best value found; the minimum
is 0, and *basin* counts the seeds below 0.5, that is in the global basin. *Per step* is
the number of evaluations of an update. The starts are uniform in [-5.12, 5.12]^30.
The rotation is one random orthogonal matrix. Exact and measured are `factorised_qiaso`
on elements, with sigma annealed geometrically, its settings chosen on these
starts; `results.json` has them. Near its minimum either function is the same multiple
of the squared distance, and a seed draws the same numbers for both: so the values of
the methods that get there agree in their leading digits.

*Network*: 64-16-10 on scikit-learn's digits, {network_seeds} seeds, minibatches of 128,
Adam on the displacement at that rate, of {rates}, which leads to the
lowest mean training loss, chosen on these very seeds; 120 evaluations per step. Mean
and standard deviation over the seeds.

*Cost*: of one compiled update on the N-dimensional Rastrigin function, K = {values},
300 evaluations at a time; the least of three, on the machine that `results.json` names.
"""


@dataclasses.dataclass(frozen=True)
class Command:
    """Measures the factorised superposition on functions and on a small network."""

    output: Path = Path("benchmarks/results/factorised")
    """Folder for results.json and table.md."""
    seeds: int = 10
    """Starts of the searches, the same for every method."""
    evaluations: tuple[int, ...] = (30_000, 300_000)
    """Budgets of the searches."""
    network_seeds: int = 5
    """Networks trained."""
    network_evaluations: int = 30_000
    """Budget of a training, in evaluations of a minibatch."""
    sizes: tuple[int, ...] = (30, 300, 3000)
    """Numbers of weights for which an update is timed."""


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
    """Writes everything; raises ``UserError`` for what a user can mend."""
    check(command)
    command.output.mkdir(parents=True, exist_ok=True)
    costs = []
    for size in command.sizes:
        costs += [methods.cost(size, None), methods.cost(size, MEASUREMENTS)]
        console.print(f"{size} weights: {costs[-2].seconds:.3g} s", style="dim")
    trainings = []
    for method in methods.network_optimizers():
        trainings += methods.train(
            method, LEARNING_RATES, command.network_evaluations, command.network_seeds
        )
        console.print(f"digits: {method}", style="dim")
    starts = starting_points(command.seeds)
    searches = []
    for name, fun in methods.FUNCTIONS.items():
        for budget in command.evaluations:
            for each in methods.searches(fun, budget, starts):
                searches.append((name, each))
                progress = f"{name}, {each.method}: {each.seconds:.0f} s"
                console.print(progress, style="dim")
    write_results(command, searches, trainings, costs)
    text = table(command, searches, best_rates(trainings), costs)
    records.write_text(command.output / "table.md", text)
    console.print(text, markup=False, highlight=False)


def check(command: Command) -> None:
    """Raises ``UserError`` for numbers that leave nothing to measure."""
    least = DIMENSION * methods.BEST["num_candidates"]
    if not command.evaluations or min(command.evaluations) < least:
        raise UserError(
            f"--evaluations must each be at least {least}, one step of the exact "
            f"method, got {list(command.evaluations)}"
        )
    if command.network_evaluations < 4 * methods.NUM_VALUES:
        raise UserError(
            f"--network-evaluations must be at least {4 * methods.NUM_VALUES}, one "
            f"step, got {command.network_evaluations}"
        )
    for name in ("seeds", "network_seeds"):
        if getattr(command, name) < 1:
            option = name.replace("_", "-")
            raise UserError(
                f"--{option} must be at least 1, got {getattr(command, name)}"
            )


def best_rates(trainings: list[Training]) -> list[Training]:
    """Of each method the one of the lowest mean training loss."""
    kept: dict[str, Training] = {}
    for each in sorted(trainings, key=lambda t: float(np.mean(t.train_losses))):
        kept.setdefault(each.method, each)
    return [kept[method] for method in methods.network_optimizers()]


def table(
    command: Command,
    searches: list[tuple[str, Run]],
    trainings: list[Training],
    costs: list[Cost],
) -> str:
    """Three tables as Markdown."""
    lines = ["# The factorised superposition", ""]
    for name in methods.FUNCTIONS:
        lines += [f"## 30-D {name}", ""]
        lines += rows(
            ["method", "per step", "evals", "Q1", "median", "Q3", "basin"],
            (
                [
                    each.method,
                    f"{each.settings['population']:,}",
                    f"{each.evaluations:,}",
                    *(f"{value:.3g}" for value in each.quartiles),
                    f"{each.solved}/{len(each.values)}",
                ]
                for function, each in searches
                if function == name
            ),
        )
    lines += ["## A network on digits", ""]
    lines += rows(
        ["method", "evals", "Adam's rate", "training loss", "test accuracy, %"],
        (
            [
                each.method,
                f"{each.evaluations:,}",
                f"{each.learning_rate:g}",
                spread(each.train_losses, 3),
                spread([100 * a for a in each.test_accuracies], 1),
            ]
            for each in trainings
        ),
    )
    lines += ["## Cost of an update", ""]
    lines += rows(
        ["method", "N", "evals", "seconds"],
        (
            [
                each.method,
                f"{each.num_weights:,}",
                f"{each.evaluations:,}",
                f"{each.seconds:.2g}",
            ]
            for each in costs
        ),
    )
    notes = NOTES.format(
        seeds=command.seeds,
        network_seeds=command.network_seeds,
        rates=", ".join(f"{rate:g}" for rate in LEARNING_RATES),
        values=methods.NUM_VALUES,
    )
    return "\n".join([*lines, notes, "Written by `python -m benchmarks.factorised`.\n"])


def rows(columns: list[str], cells: Iterable[list[str]]) -> list[str]:
    """The lines of a table, and an empty one."""
    ruler = ["---", *["---:"] * (len(columns) - 1)]
    return ["| " + " | ".join(row) + " |" for row in (columns, ruler, *cells)] + [""]


def spread(values: list[float], digits: int) -> str:
    """Mean and standard deviation."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return f"{np.mean(values):.{digits}f} ± {deviation:.{digits}f}"


def write_results(
    command: Command,
    searches: list[tuple[str, Run]],
    trainings: list[Training],
    costs: list[Cost],
) -> None:
    """Every value of every seed, and what produced them."""
    shown = best_rates(trainings)
    content = records.provenance() | {
        "command": "python -m benchmarks.factorised",
        "seeds": list(range(command.seeds)),
        "rotation_seed": methods.ROTATION_SEED,
        "network_settings": {
            "widths": [64, methods.HIDDEN, 10],
            "batch_size": methods.BATCH_SIZE,
            "num_candidates": methods.NUM_VALUES,
            "evaluations_per_step": 4 * methods.NUM_VALUES,
            "sigma": methods.NETWORK_SIGMA,
            "seeds": list(range(command.network_seeds)),
        },
        "searches": [
            {"function": name}
            | dataclasses.asdict(each)
            | {"quartiles": each.quartiles, "solved": each.solved}
            for name, each in searches
        ],
        "network": [
            dataclasses.asdict(each) | {"shown": each in shown} for each in trainings
        ],
        "cost": [dataclasses.asdict(each) for each in costs],
    }
    records.write_json(command.output / "results.json", content)


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Command)))
