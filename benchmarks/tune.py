"""``python -m benchmarks.tune``: the default learning rates, from a small grid.

Every optimizer gets five trials of the one number it tunes, on the paper's MLP and
MNIST, and keeps the one with the best accuracy on the validation split. A trial is ten
epochs, of all examples where gradients alone are used and of 12,800 (1,000 steps)
where K candidates are evaluated, which costs about as much; one epoch for the printed
algorithm, whose steps cost a hundred times those of Adam. Shorter trials choose rates
that are too high for the long runs they are for.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, get_args

import jax
import numpy as np

from benchmarks import cli
from benchmarks.cli import progress, require_some
from benchmarks.harness import data, pipeline, records
from benchmarks.harness.loop import compile_program
from benchmarks.harness.optimizers import REGISTRY, OptimizerName
from benchmarks.harness.settings import RATES, Experiment, resolved

# Not a seed that results are reported for.
SEED = 1000
TRIAL_EPOCHS = 10
# Full CMA-ES takes no network of this size, and so has a small one.
CMA_ES_HIDDEN = (8,)


@dataclasses.dataclass(frozen=True)
class Command:
    """Writes benchmarks/results/learning_rates.json."""

    optimizers: tuple[OptimizerName, ...] = get_args(OptimizerName)
    """Which; the others are kept."""
    output: Path = RATES
    data_dir: Path | None = None
    cache_dir: Path | None = None


def main(command: Command) -> None:
    """Runs the grid, and writes the file after each optimizer.

    Raises:
      UserError: No optimizer is named.
    """
    require_some(command, "optimizers")
    content: dict[str, Any] = {"chosen": {}, "optimizers": {}}
    if command.output.exists():
        content = json.loads(command.output.read_text())
    for name in command.optimizers:
        report = tuned(name, command)
        accuracies = [trial["validation_accuracy"] for trial in report["trials"]]
        progress(f"{name}: {report['chosen']} {accuracies}")
        content["chosen"][name] = report["chosen"]
        content["optimizers"][name] = report
        command.output.parent.mkdir(parents=True, exist_ok=True)
        records.write_json(command.output, content)


def trial_experiment(name: str, value: float) -> Experiment:
    """One trial of the optimizer called ``name``."""
    entry = REGISTRY[name]
    tuned: dict[str, Any] = {entry.tunes: value}
    small = name == "cma-es"
    experiment = Experiment(
        dataset="digits" if small else "mnist",
        network="mlp",
        optimizer=name,  # type: ignore[arg-type]
        hidden=CMA_ES_HIDDEN if small else None,
        epochs=1 if name == "qiaso-paper" else TRIAL_EPOCHS,
        limit=12_800 if "candidates" in entry.takes and not small else None,
        first_seed=SEED,
        **tuned,
    )
    return resolved(experiment)


def tuned(name: str, command: Command) -> dict[str, Any]:
    """The trials of one optimizer, and the value chosen."""
    trials = []
    experiments = {v: trial_experiment(name, v) for v in REGISTRY[name].grid}
    any_one = next(iter(experiments.values()))
    dataset = data.load(any_one.dataset, command.data_dir, command.cache_dir)
    splits = pipeline.split(dataset, any_one.validation, any_one.limit)
    for value, experiment in experiments.items():
        program = compile_program(experiment, splits)
        state = program.state
        for epoch in range(1, program.epochs + 1):
            state, _ = program.epoch(state, epoch)
        result = jax.device_get(program.evaluate(state))
        loss = float(np.mean(result["validation_loss"]))
        trials.append(
            {
                "value": value,
                "validation_accuracy": float(np.mean(result["validation_accuracy"])),
                # JSON has no NaN, which is what a run that diverged ends in.
                "validation_loss": loss if np.isfinite(loss) else None,
            }
        )
    best = max(trials, key=_score)
    return {
        "tunes": REGISTRY[name].tunes,
        "chosen": best["value"],
        "trials": trials,
        "experiment": dataclasses.asdict(experiments[best["value"]]),
    } | records.provenance()


def _score(trial: dict[str, Any]) -> tuple[bool, float]:
    return trial["validation_loss"] is not None, trial["validation_accuracy"]


if __name__ == "__main__":
    cli.run(main, Command, __doc__)
