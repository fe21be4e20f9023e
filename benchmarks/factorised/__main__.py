"""``python -m benchmarks.factorised``: a superposition of every block for itself.

Leaves ``results.json`` (every seed's value) and ``table.md`` in the output folder.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from benchmarks import cli
from benchmarks.cli import progress, require_at_least, require_some
from benchmarks.factorised import methods, network
from benchmarks.factorised.methods import Cost
from benchmarks.factorised.network import Training
from benchmarks.harness import records
from benchmarks.markdown import spread, table
from benchmarks.rastrigin.methods import DIMENSION, Run, starting_points

LEARNING_RATES = (0.003, 0.01, 0.03, 0.1)
MEASUREMENTS = 300

SEARCH = ("method", "per step", "evals", "Q1", "median", "Q3", "basin")
NETWORK = ("method", "evals", "Adam's rate", "training loss", "test accuracy, %")
COST = ("method", "N", "evals", "seconds")

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


def main(command: Command) -> None:
    """Writes everything, and prints the tables."""
    require_at_least(command, 1, "seeds", "network_seeds")
    require_some(command, "evaluations")
    # One step of the method that evaluates most in a step.
    least = DIMENSION * methods.BEST["num_candidates"]
    require_at_least(command, least, "evaluations")
    require_at_least(command, network.PER_STEP, "network_evaluations")
    command.output.mkdir(parents=True, exist_ok=True)
    costs = []
    for size in command.sizes:
        costs += [methods.cost(size, None), methods.cost(size, MEASUREMENTS)]
        progress(f"{size} weights: {costs[-2].seconds:.3g} s")
    trainings = []
    for method in network.OPTIMIZERS:
        trainings += network.train(
            method, LEARNING_RATES, command.network_evaluations, command.network_seeds
        )
        progress(f"digits: {method}")
    starts = starting_points(command.seeds)
    searches = []
    for name, fun in methods.FUNCTIONS.items():
        for budget in command.evaluations:
            for each in methods.searches(fun, budget, starts):
                searches.append((name, each))
                progress(f"{name}, {each.method}: {each.seconds:.0f} s")
    shown = best_rates(trainings)
    content = records.provenance() | {
        "command": "python -m benchmarks.factorised",
        "seeds": list(range(command.seeds)),
        "rotation_seed": methods.ROTATION_SEED,
        "network_settings": {
            "widths": [64, network.HIDDEN, 10],
            "batch_size": network.BATCH_SIZE,
            "num_candidates": network.NUM_VALUES,
            "evaluations_per_step": network.PER_STEP,
            "sigma": network.SIGMA,
            "seeds": list(range(command.network_seeds)),
        },
        "searches": [{"function": name} | each.record() for name, each in searches],
        "network": [
            dataclasses.asdict(each) | {"shown": each in shown} for each in trainings
        ],
        "cost": [dataclasses.asdict(each) for each in costs],
    }
    records.write_json(command.output / "results.json", content)
    text = page(searches, shown, costs)
    records.write_text(command.output / "table.md", text)
    print(text)


def best_rates(trainings: list[Training]) -> list[Training]:
    """Of each method the one of the lowest mean training loss."""
    kept: dict[str, Training] = {}
    for each in sorted(trainings, key=lambda t: float(np.mean(t.train_losses))):
        kept.setdefault(each.method, each)
    return [kept[method] for method in dict.fromkeys(t.method for t in trainings)]


def page(
    searches: list[tuple[str, Run]], trainings: list[Training], costs: list[Cost]
) -> str:
    """The tables as Markdown."""
    parts = ["# The factorised superposition", ""]
    for name in dict.fromkeys(name for name, _ in searches):
        rows = [[run.method, *run.cells()] for each, run in searches if each == name]
        parts += [f"## 30-D {name}", "", table(SEARCH, rows, numbers=True)]
    rows = [
        [
            each.method,
            f"{each.evaluations:,}",
            f"{each.learning_rate:g}",
            spread(each.train_losses, 3),
            spread([100 * accuracy for accuracy in each.test_accuracies], 1),
        ]
        for each in trainings
    ]
    parts += ["## A network on digits", "", table(NETWORK, rows, numbers=True)]
    rows = [
        [
            each.method,
            f"{each.num_weights:,}",
            f"{each.evaluations:,}",
            f"{each.seconds:.2g}",
        ]
        for each in costs
    ]
    parts += ["## Cost of an update", "", table(COST, rows, numbers=True)]
    notes = NOTES.format(
        seeds=len(searches[0][1].values),
        network_seeds=len(trainings[0].train_losses),
        rates=", ".join(f"{rate:g}" for rate in LEARNING_RATES),
        values=network.NUM_VALUES,
    )
    return "\n".join([*parts, notes, "Written by `python -m benchmarks.factorised`.\n"])


if __name__ == "__main__":
    cli.run(main, Command, __doc__)
