"""``python -m benchmarks.paper <name>``: one table, figure or theorem of the paper.

Trains or computes what is missing for the profile and writes
``benchmarks/results/paper/<profile>/<name>.json``. ``report`` makes
``docs/reproduction.md`` and the pages it leads to from these files alone.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal

import tyro
from rich.console import Console

from benchmarks import cli
from benchmarks.cli import UserError
from benchmarks.harness import records
from benchmarks.paper import report, theory
from benchmarks.paper.figures import (
    figure2,
    figure4,
    figure5,
    figure6,
    figure7,
    figure8,
)
from benchmarks.paper.runs import rounded
from benchmarks.paper.study import Study
from benchmarks.paper.tables import (
    cost,
    robustness,
    table1,
    table2,
    table3,
    table4,
    table5,
    table6,
)

MODULES: dict[str, ModuleType] = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        *(table1, table2, table3, table4, table5, table6),
        *(figure2, figure4, figure5, figure6, figure7, figure8),
        *(theory, robustness, cost),
    )
}
"""Each with ``measure(study) -> dict`` and ``section(content)``."""


@dataclasses.dataclass(frozen=True)
class Command:
    """Measures one table, figure or theorem of the paper, or all, or reports."""

    name: Annotated[
        Literal[*MODULES, "all", "report"],  # type: ignore[valid-type]
        tyro.conf.Positional,
    ]
    study: Annotated[Study, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=Study
    )
    docs: Path = Path("docs")
    """Where ``report`` writes."""


def main(command: Command) -> None:
    """Runs ``command``; raises ``UserError`` for what a user can put right."""
    console = Console(stderr=True, soft_wrap=True)
    study = command.study
    if command.name == "report":
        path = report.write(study.results, command.docs, MODULES)
        console.print(f"written: {path}", highlight=False)
        return
    try:
        # Before the hours that fill it.
        study.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--results {study.results}: {error}") from error
    for name in MODULES if command.name == "all" else (command.name,):
        content = rounded(MODULES[name].measure(study)) | records.provenance()
        path = study.folder / f"{name}.json"
        records.write_json(path, {"profile": study.profile} | content)
        console.print(f"written: {path}", highlight=False)
        print(MODULES[name].section(content).body)


if __name__ == "__main__":
    cli.run(main, Command, __doc__)
