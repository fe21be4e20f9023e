"""``python -m benchmarks.headline``: MNIST without gradients, at a glance.

Draws test accuracy over seconds and over sample-forwards of node space, low rank,
evosax's Open-ES, PGPE and SNES, and Adam, from stored runs and nothing else. Rates, of
SNES its σ, are those of ``python -m benchmarks.tune``. Leaves ``headline.json``,
``headline.svg`` and ``headline.png`` in the output folder.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks import cli
from benchmarks.cli import UserError
from benchmarks.harness import records
from benchmarks.paper.runs import packed
from qiaso_jax import plot

RESULTS = Path(__file__).parent / "results"
RUNS = {
    "node space": "paper/cpu/runs/mnist-node.json",
    "low rank": "train/mnist-mlp-qiaso-low-rank",
    "Open-ES": "train/mnist-mlp-open-es",
    "PGPE": "train/mnist-mlp-pgpe",
    "SNES": "train/mnist-mlp-snes",
    "Adam": "paper/cpu/runs/mnist-adam.json",
}
"""A folder of ``benchmarks.train``, or what ``benchmarks.paper`` has packed of one."""

SAME = ("dataset", "network", "hidden", "shift", "rotate", "zoom", "flip", "limit")
"""Settings in which the runs must not differ."""


@dataclasses.dataclass(frozen=True)
class Command:
    """Draws test accuracy on MNIST over seconds and over sample-forwards."""

    results: Path = RESULTS
    """Where the stored runs are."""
    output: Path = RESULTS / "headline"


def main(command: Command) -> None:
    """Writes the numbers and the figure, and prints the last of each method.

    Raises:
      UserError: A run is missing or damaged, or differs from the others in kind.
    """
    content = collected(command.results)
    command.output.mkdir(parents=True, exist_ok=True)
    records.write_json(command.output / "headline.json", content)
    plot.save(figure(content), command.output / "headline")
    for name, run in content["methods"].items():
        print(
            f"{name:10} {run['accuracy'][-1]:6.2f} % after {run['seconds'][-1]:6.1f} s "
            f"and {run['sample_forwards'][-1] / 1e6:6.1f} million sample-forwards"
        )


def collected(results: Path) -> dict[str, Any]:
    """The curves of all methods, and what they were measured with."""
    methods = {name: method(results / path, path) for name, path in RUNS.items()}
    shared = {
        name: [each["experiment"].get(name) for each in methods.values()]
        for name in SAME
    }
    for name, values in shared.items():
        if any(value != values[0] for value in values):
            raise UserError(f"the runs differ in {name}: {values}")
    return {
        "command": "python -m benchmarks.headline",
        "shared": {name: values[0] for name, values in shared.items()},
        "methods": methods,
    }


def method(path: Path, source: str) -> dict[str, Any]:
    """Mean and range over seeds of one run, over its cost for each seed."""
    try:
        run = packed(path) if path.is_dir() else json.loads(path.read_text())
        accuracy = 100 * np.array(run["curves"]["test_accuracy"])
        epochs, seeds = accuracy.shape
        forwards = run["sample_forwards"] / epochs
        # Seeds are trained side by side; the median is free of what is done once.
        seconds = run["seconds_per_epoch"] / seeds
        experiment, machine = run["experiment"], run["machine"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is no whole run ({error!r})") from error
    each = np.arange(1, epochs + 1)
    return {
        "source": source,
        "seeds": seeds,
        "sample_forwards": np.round(each * forwards).tolist(),
        "seconds": np.round(each * seconds, 3).tolist(),
        "accuracy": np.round(accuracy.mean(axis=1), 2).tolist(),
        "least": np.round(accuracy.min(axis=1), 2).tolist(),
        "greatest": np.round(accuracy.max(axis=1), 2).tolist(),
        "experiment": experiment,
        "machine": machine,
        "date": run["date"],
        "revision": run["revision"],
    }


@plot.style()
def figure(content: dict[str, Any]) -> Figure:
    """Accuracy over seconds above, over sample-forwards below."""
    drawing = Figure(figsize=(plot.WIDTH, 8), layout="constrained")
    panels: Any = drawing.subplots(2, 1, sharey=True)
    methods = content["methods"]
    for axes, cost, unit in zip(
        panels, ("seconds", "sample_forwards"), (1, 1e6), strict=True
    ):
        for name, run in methods.items():
            plot.curve(
                np.array(run[cost]) / unit,
                run["accuracy"],
                (run["least"], run["greatest"]),
                ax=axes,
                label="Adam (gradients)" if name == "Adam" else name,
                linestyle="--" if name == "Adam" else "-",
            )
        axes.set(xscale="log", ylim=(65, 100), ylabel="test accuracy (%)")
    panels[0].set_xlabel("seconds of training, on two cores")
    panels[1].set_xlabel("million sample-forwards")
    handles, labels = panels[0].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside upper center", ncols=3)
    plot.caption(drawing, described(content))
    return drawing


def described(content: dict[str, Any]) -> str:
    """The caption: network, seeds, budget and machine, as they are stored."""
    methods, shared = content["methods"], content["shared"]
    experiments = {name: run["experiment"] for name, run in methods.items()}
    candidates = {
        name: each["candidates"]
        for name, each in experiments.items()
        if each["sigma"] is not None
    }
    images = {name: f"{1 - e['validation']:.0%}" for name, e in experiments.items()}
    sizes = {name: each["batch_size"] for name, each in experiments.items()}
    seeds = {name: run["seeds"] for name, run in methods.items()}
    machines = {
        name: f"{run['machine']['cores']} cores of {run['machine']['cpu']}"
        for name, run in methods.items()
    }
    most = max(run["sample_forwards"][-1] for run in methods.values()) / 1e6
    network = "-".join(map(str, shared["hidden"]))
    return (
        f"MNIST, MLP {network}, trained on {told(images)} of 60,000 images, not "
        f"augmented, for at most {most:.0f} million sample-forwards; a gradient counts "
        f"as three. Minibatches of {told(sizes)}. Candidates: {told(candidates)}. "
        f"Seeds: {told(seeds)}; lines are means, bands reach from least to greatest. "
        f"Seconds are of one seed, without compilation, on {told(machines)}."
    )


def told(values: dict[str, Any]) -> str:
    """The commonest value, and those that have another."""
    common = Counter(values.values()).most_common(1)[0][0]
    others = [f"{name} {value}" for name, value in values.items() if value != common]
    return f"{common} ({', '.join(others)})" if others else str(common)


if __name__ == "__main__":
    cli.run(main, Command, __doc__)
