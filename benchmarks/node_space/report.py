"""What the studies of node space share: files, spaces, refusals."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.cli import require, require_at_least, require_fraction
from benchmarks.harness import records

RESULTS = Path("benchmarks/results/node_space")

REFUSALS = (TypeError, ValueError, NotImplementedError)
"""How the library says that it will not use a function."""


def node_settings(command: Any) -> dict[str, Any]:
    """The arguments of ``node_qiaso`` that a command sets; checks them."""
    require_at_least(command, 2, "candidates")
    require(command, "even", lambda number: number % 2 == 0, "candidates")
    require_fraction(command, "examples")
    settings = {"num_candidates": command.candidates}
    if command.examples is not None:
        settings["examples"] = command.examples
    return settings


def examples_in_words(command: Any) -> str:
    """Which share of a minibatch has candidates."""
    return "by default" if command.examples is None else f"= {command.examples:g}"


def write(command: Any, name: str, content: dict[str, Any], text: str) -> None:
    """Leaves ``name.json``, with what produced it, and ``name.md`` in the folder."""
    settings = dataclasses.asdict(command)
    folder = settings.pop("output")
    folder.mkdir(parents=True, exist_ok=True)
    by = f"python -m benchmarks.node_space.{name}"
    content = {"command": by, "settings": settings} | content | records.provenance()
    records.write_json(folder / f"{name}.json", content)
    records.write_text(folder / f"{name}.md", f"{text}\nWritten by `{by}`.\n")


def spaces(sites: Iterable[Any]) -> dict[str, str]:
    """The space of each parameter; "node+weights" and the like where it has several."""
    found: dict[str, set[str]] = {}
    for site in sites:
        found.setdefault(site.path, set()).add(site.space)
    return {path: "+".join(sorted(each)) for path, each in found.items()}


def spaces_in_words(found: Mapping[str, str], paths: Iterable[str]) -> str:
    """One word where these parameters share a space, else each with its own."""
    if not found:
        return ""
    of_paths = {path: found.get(path, "not listed") for path in paths}
    if len(set(of_paths.values())) == 1:
        return next(iter(of_paths.values()))
    return ", ".join(f"{path}: {space}" for path, space in of_paths.items())


def refusals(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """A list of the sentences in place of numbers, or nothing; rows by their name."""
    said = [
        f"- *{name}*: {row['refused']}"
        for name, row in rows.items()
        if "refused" in row
    ]
    return "\n".join(["", "Refused:", "", *said, ""]) if said else ""
