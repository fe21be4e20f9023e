"""What the studies of node space share: exit status, checks, files, spaces."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.cli import UserError
from benchmarks.harness import records

RESULTS = Path("benchmarks/results/node_space")

REFUSALS = (TypeError, ValueError, NotImplementedError)
"""How the library says that it will not use a function."""


def main(run: Callable[[Any, Console], None], command: Any) -> int:
    """Runs ``command``; returns the exit status of the process."""
    console = Console()
    try:
        run(command, console)
    except UserError as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        return 1
    return 0


def check_counts(command: Any, **least: int) -> None:
    """Raises ``UserError`` for settings below so much, or lists with such an entry."""
    for name, bound in least.items():
        value = getattr(command, name)
        if min(value if isinstance(value, tuple) else (value,), default=0) < bound:
            shown = list(value) if isinstance(value, tuple) else value
            raise UserError(f"{option(name)} must be at least {bound}, got {shown}")


def check_candidates(command: Any) -> None:
    """Raises ``UserError`` for numbers that ``node_qiaso`` does not take."""
    if command.candidates < 2 or command.candidates % 2:
        raise UserError(
            f"--candidates must be even and at least 2, got {command.candidates}"
        )
    if command.examples is not None and not 0 < command.examples <= 1:
        raise UserError(f"--examples must be in (0, 1], got {command.examples}")


def examples_in_words(command: Any) -> str:
    """Which share of a minibatch has candidates."""
    return "by default" if command.examples is None else f"= {command.examples:g}"


def check_positive(command: Any, *names: str) -> None:
    """Raises ``UserError`` unless these lists hold positive, finite numbers."""
    for name in names:
        values = getattr(command, name)
        if not values or not all(0 < value < math.inf for value in values):
            raise UserError(f"{option(name)} must be positive, got {list(values)}")


def check_named(command: Any, *names: str) -> None:
    """Raises ``UserError`` for lists that name nothing."""
    for name in names:
        if not getattr(command, name):
            raise UserError(f"{option(name)} must name at least one")


def option(name: str) -> str:
    """A setting as it is typed."""
    return "--" + name.replace("_", "-")


def write(command: Any, name: str, content: dict[str, Any], text: str) -> None:
    """Leaves ``name.json``, with what produced it, and ``name.md`` in the folder."""
    settings = dataclasses.asdict(command)
    folder = settings.pop("output")
    folder.mkdir(parents=True, exist_ok=True)
    by = f"python -m benchmarks.node_space.{name}"
    content = {"command": by, "settings": settings} | content | records.provenance()
    records.write_json(folder / f"{name}.json", content)
    records.write_text(folder / f"{name}.md", f"{text}\nWritten by `{by}`.\n")


def listed(sites: Iterable[Any]) -> list[dict[str, Any]]:
    """The sites as JSON holds them."""
    return [site._asdict() for site in sites]


def spaces(sites: Iterable[Any]) -> dict[str, str]:
    """The space of each parameter; "node+weights" and the like where it has several."""
    found: dict[str, set[str]] = {}
    for site in sites:
        found.setdefault(site.path, set()).add(site.space)
    return {path: "+".join(sorted(each)) for path, each in found.items()}


def spaces_in_words(found: dict[str, str], paths: Iterable[str]) -> str:
    """One word where these parameters share a space, else each with its own."""
    of_paths = {path: found.get(path, "not listed") for path in paths}
    if len(set(of_paths.values())) == 1:
        return next(iter(of_paths.values()))
    return ", ".join(f"{path}: {space}" for path, space in of_paths.items())


def refusals(names: Sequence[str], reports: Sequence[dict[str, Any]]) -> str:
    """A list of the sentences in place of numbers, or nothing."""
    said = [
        f"- *{name}*: {report['refused']}"
        for name, report in zip(names, reports, strict=True)
        if "refused" in report
    ]
    return "\n".join(["", "Refused:", "", *said, ""]) if said else ""
