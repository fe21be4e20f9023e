"""docs/reproduction.md from stored measurements, and from nothing else."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.cli import UserError
from benchmarks.harness import records
from benchmarks.markdown import table
from benchmarks.paper.forms import LEGEND
from benchmarks.paper.section import Section

PREFERENCE = ("full", "cpu")
PAGE = "reproduction.md"

INTRODUCTION = """\
# The paper, re-run

Every claim of Sajjad and AL Sobhi, AIMS Mathematics 2026, with the command that tests
it, what came out, and a verdict. Written by `python -m benchmarks.paper report` from
the files under `benchmarks/results/paper/`, which hold machine, versions, revision and
seeds; no number on this page is typed by hand.

Profiles differ in epochs, seeds and subset only. `full` is the paper's protocol, 100
epochs and 10 seeds; `cpu` is what two cores do in hours: the full protocol on MNIST for
whatever takes gradients and for node space, less for the rest. Each row says how it was
trained; an accuracy that falls short after fewer epochs or examples than the paper's is
not held against a claim, but counts as *not measured*.
"""


def write(results: Path, docs: Path, modules: Mapping[str, ModuleType]) -> Path:
    """Writes the page and its figures into ``docs``; returns the page.

    Raises:
      UserError: There is nothing to report.
    """
    stored = {name: content for name in modules if (content := best(results, name))}
    if not stored:
        raise UserError(
            f"{results} holds no measurement of the profiles {', '.join(PREFERENCE)}: "
            "run python -m benchmarks.paper all first"
        )
    sections = {name: modules[name].section(c) for name, c in stored.items()}
    draw(docs / "figures", sections)
    parts = [INTRODUCTION, ledger(sections), "## The forms of QIASO\n\n" + LEGEND]
    parts += [chapter(name, stored[name], sections[name]) for name in stored]
    if absent := [name for name in modules if name not in stored]:
        commands = "".join(f"- `python -m benchmarks.paper {n}`\n" for n in absent)
        parts.append(f"## Not measured\n\n{commands}")
    page = docs / PAGE
    records.write_text(page, "\n".join(parts))
    return page


def draw(folder: Path, sections: Mapping[str, Section]) -> None:
    """Writes all figures; the same numbers give the same files."""
    folder.mkdir(parents=True, exist_ok=True)
    for section in sections.values():
        for file, figure in section.figures.items():
            # Without the version of matplotlib.
            figure.savefig(folder / file, dpi=80, metadata={"Software": None})


def best(results: Path, name: str) -> dict[str, Any] | None:
    """The most complete measurement of ``name`` that is stored."""
    for profile in PREFERENCE:
        path = results / profile / f"{name}.json"
        if path.exists():
            try:
                return json.loads(path.read_text())
            except ValueError as error:
                raise UserError(f"{path} is damaged ({error})") from error
    return None


def ledger(sections: dict[str, Section]) -> str:
    """All verdicts in one table, with the command for each."""
    rows = [
        (v.claim, v.found, f"**{v.word}**", f"[{name}](#{name})")
        for name, section in sections.items()
        for v in section.verdicts
    ]
    counts = Counter(word for _, _, word, _ in rows)
    summary = ", ".join(f"{number} {word}" for word, number in sorted(counts.items()))
    head = ("the paper says", "we find", "verdict", "where")
    return f"## Ledger\n\n{len(rows)} claims: {summary}.\n\n" + table(head, rows)


def chapter(name: str, content: dict[str, Any], section: Section) -> str:
    """One section of the page, with where its numbers come from."""
    machine = content["machine"]
    device = machine["device"] if machine["backend"] != "cpu" else machine["cpu"]
    pictures = "".join(
        f"\n![{section.title}](figures/{file})\n" for file in section.figures
    )
    return (
        f'<a id="{name}"></a>\n\n## {section.title}\n\n'
        f"`python -m benchmarks.paper {name} --profile {content['profile']}` "
        f"({device}, {machine['cores']} cores, jax {content['versions']['jax']}, "
        f"revision {str(content['revision'])[:12]}, {content['date'][:10]})\n\n"
        f"{section.body}{pictures}"
    )
