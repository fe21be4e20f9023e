"""``python -m benchmarks.step_cost``: a step beside the evaluation of its candidates.

Seconds, compiled memory and compile seconds of a step of ``qiaso`` with every kind of
directions, of its printed form, of node space and of evosax's methods, in units of the
evaluation of K dense candidates, of one forward pass of K minibatches, and of Adam's
step, on three networks. The methods of a table take turns within one process, so that
whatever else the machine does strikes all of them. Leaves ``results.json``,
``table.md``, and figures of cost and memory in the output folder, and prints the
targets of the project.

``--large`` compiles, and with ``--steps`` runs, a step with a thousand candidates of a
transformer of 100 million parameters instead, and leaves ``large.json``.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any, get_args

from benchmarks import cli
from benchmarks.cli import (
    progress,
    require_at_least,
    require_positive,
    require_some,
)
from benchmarks.harness import records
from benchmarks.step_cost import large, report, tables, targets
from benchmarks.step_cost.measure import Limits
from benchmarks.step_cost.models import NetworkName
from qiaso_jax import plot


@dataclasses.dataclass(frozen=True)
class Command:
    """Measures what steps cost."""

    output: Path = Path("benchmarks/results/step_cost")
    """Folder for results.json, table.md and the figures."""
    networks: tuple[NetworkName, ...] = get_args(NetworkName)
    candidates: tuple[int, ...] = (2, 8, 30, 128, 512)
    cnn_candidates: tuple[int, ...] = (2, 8, 30, 128)
    transformer_candidates: tuple[int, ...] = (8, 30)
    batch_size: int = 128
    cnn_batch_size: int = 32
    transformer_batch_size: int = 4
    """Sequences of 64 tokens."""
    chunks: tuple[int, ...] = (1, 2, 6)
    """Candidates at a time that are tried for the cnn and the transformer, beside all
    of them."""
    rounds: int = 9
    """Rounds of each table, fewer where they last long."""
    longest: float = 15.0
    """Seconds that the rounds of a table may last, three of them apart."""
    memory: float = 16.0
    """GiB: what needs more is not run."""
    large: bool = False
    """Compile the step of a large transformer, and nothing else."""
    steps: int = 0
    """So many of its steps are run."""

    @property
    def limits(self) -> Limits:
        """Of every table."""
        return Limits(self.rounds, self.longest, self.memory)

    def sizes(self, network: str) -> tuple[int, tuple[int, ...]]:
        """Batch size and candidates for ``network``."""
        return {
            "mlp": (self.batch_size, self.candidates),
            "cnn": (self.cnn_batch_size, self.cnn_candidates),
            "transformer": (self.transformer_batch_size, self.transformer_candidates),
        }[network]


def main(command: Command) -> None:
    """Writes everything, and prints the targets."""
    check(command)
    command.output.mkdir(parents=True, exist_ok=True)
    if command.large:
        found = large.measured(large.Size(), command.steps)
        content = {"command": "python -m benchmarks.step_cost --large"} | found
        records.write_json(
            command.output / "large.json", content | records.provenance()
        )
        print("\n".join(large.lines(found)))
        return
    networks: dict[str, Any] = {}
    for name in command.networks:
        start = time.perf_counter()
        networks[name] = tables.of_network(
            name, *command.sizes(name), command.chunks, command.limits
        )
        seconds = networks[name]["seconds"] = round(time.perf_counter() - start, 1)
        progress(f"{name}: {seconds} s")
    settings = dataclasses.asdict(command)
    for unstored in ("output", "large", "steps"):
        del settings[unstored]
    scaling: dict[str, Any] = {}
    if "mlp" in command.networks:
        scaling = tables.of_scaling(*command.sizes("mlp"), command.limits)
    batch_sizes: dict[NetworkName, int] = {
        name: command.sizes(name)[0] for name in command.networks
    }
    content = {
        "command": "python -m benchmarks.step_cost",
        "settings": settings,
        "networks": networks,
        "scaling": scaling,
        "exponents": tables.exponents(networks, scaling),
        "memory": tables.of_memory(batch_sizes),
    } | records.provenance()
    verdicts = targets.verdicts(content)
    content["targets"] = [verdict._asdict() for verdict in verdicts]
    records.write_json(command.output / "results.json", content)
    page = report.page(settings, content, targets.as_table(verdicts))
    records.write_text(command.output / "table.md", page)
    plot.save(report.cost(networks), command.output / "cost")
    plot.save(report.memory(networks), command.output / "memory")
    for verdict in verdicts:
        print(", ".join(filter(None, verdict.cells)))


def check(command: Command) -> None:
    """Raises ``UserError`` for numbers that cannot be."""
    sizes = ("batch_size", "cnn_batch_size", "transformer_batch_size")
    numbers = ("candidates", "cnn_candidates", "transformer_candidates")
    require_some(command, "networks", *numbers)
    require_at_least(command, 2, *numbers)
    require_at_least(command, 1, "rounds", "chunks", *sizes)
    require_at_least(command, 0, "steps")
    require_positive(command, "longest", "memory")


if __name__ == "__main__":
    cli.run(main, Command, __doc__)
