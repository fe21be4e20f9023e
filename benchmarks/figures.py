"""``python -m benchmarks.figures``: every figure again, from what is stored.

Nothing is trained: curves are drawn from ``metrics.jsonl``, all others from the JSON
beside them. Only the pictures of ``examples/pictures.py`` are of a search that runs
now, for seconds.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import tyro

from benchmarks import cli, headline
from benchmarks.coco import ecdf
from benchmarks.harness import plotting, records
from benchmarks.node_signal import report as node_signal_report
from benchmarks.paper import report as paper_report
from benchmarks.paper.__main__ import MODULES
from benchmarks.step_cost import report as step_cost_report
from qiaso_jax import plot

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DOCS = ROOT / "docs" / "figures"


def train() -> None:
    """The curves of every run of ``benchmarks.train`` that is kept."""
    for config in sorted((RESULTS / "train").glob("*/config.json")):
        experiment = json.loads(config.read_text())["experiment"]
        history = records.read(config.with_name("metrics.jsonl"))
        protocol = plotting.protocol(experiment)
        plotting.write_curves(config.with_name("curves"), history, protocol)


def coco() -> None:
    """Targets of COCO's that are reached, against evaluations."""
    plot.save(ecdf.figure(_stored("coco/results.json"), ecdf.stored()), DOCS / "coco")


def step_cost() -> None:
    """Seconds and memory of a step."""
    networks = _stored("step_cost/results.json")["networks"]
    plot.save(step_cost_report.cost(networks), RESULTS / "step_cost/cost")
    plot.save(step_cost_report.memory(networks), RESULTS / "step_cost/memory")


def node_signal() -> None:
    """Cosines of the pseudo-gradient."""
    content = _stored("node_signal/results.json")
    figure = node_signal_report.figure(content["settings"], content["networks"])
    plot.save(figure, RESULTS / "node_signal/cosine")


def paper() -> None:
    """The paper's figures."""
    stored = {
        name: content
        for name in MODULES
        if (content := paper_report.best(RESULTS / "paper", name))
    }
    sections = {name: MODULES[name].section(each) for name, each in stored.items()}
    paper_report.draw(DOCS, sections)


def digits() -> None:
    """The example on digits."""
    histories = _stored("digits/metrics.json")["history"]
    _example("digits").draw(histories, RESULTS / "digits/digits")


def fine_tuning() -> None:
    """The example of fine-tuning, for the docs too."""
    results = _stored("fine_tuning/results.json")["results"]
    for path in _example("fine_tuning").draw(results, RESULTS / "fine_tuning/figure"):
        shutil.copy(path, DOCS / f"fine_tuning{path.suffix}")


def pictures() -> None:
    """What ``qiaso_jax.plot`` draws, for its page."""
    _example("pictures").main(DOCS / "plot")


def of_headline() -> None:
    """``python -m benchmarks.headline``."""
    headline.main(headline.Command())


DRAWN: dict[str, Callable[[], None]] = {
    "train": train,
    "coco": coco,
    "step-cost": step_cost,
    "node-signal": node_signal,
    "paper": paper,
    "digits": digits,
    "fine-tuning": fine_tuning,
    "pictures": pictures,
    "headline": of_headline,
}


@dataclasses.dataclass(frozen=True)
class Command:
    """Draws stored figures again, all or those that are named."""

    names: Annotated[
        tuple[Literal[*DRAWN], ...],  # type: ignore[valid-type]
        tyro.conf.Positional,
    ] = ()


def main(command: Command) -> None:
    """Draws them."""
    for name in command.names or DRAWN:
        DRAWN[name]()
        cli.progress(f"drawn: {name}")


def _stored(path: str) -> dict[str, Any]:
    return json.loads((RESULTS / path).read_text())


def _example(name: str) -> ModuleType:
    sys.path.insert(0, str(ROOT / "examples"))
    return importlib.import_module(name)


if __name__ == "__main__":
    cli.run(main, Command, __doc__)
