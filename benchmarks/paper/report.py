"""The report's pages from stored measurements, and from nothing else."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.cli import UserError
from benchmarks.harness import records
from benchmarks.markdown import table
from benchmarks.paper.forms import LEGEND
from benchmarks.paper.section import Section, Verdict
from qiaso_jax import plot

PREFERENCE = ("full", "cpu")
PAGE = "reproduction.md"
FOLDER = "reproduction"
"""Of the pages that the first one leads to."""

INTRODUCTION = """\
# The paper, re-run

Every claim of Sajjad and AL Sobhi, AIMS Mathematics 2026, put to the test. These pages
are written by `python -m benchmarks.paper report` from the files under
`benchmarks/results/paper/`, which hold machine, versions, revision and seeds; no number
on them is typed by hand.
"""
WORDS = {
    "reproduced": "as printed, it holds",
    "reproduced by another method": "it is reached, but not by the printed algorithm",
    "not reproduced": "it does not hold",
    "wrong": "the statement is false: there is a counter-example",
    "contradictory": "the paper itself says otherwise elsewhere",
    "not measured": "it was not reached with fewer epochs, seeds or examples than the "
    "paper's, which is not held against it",
}
HEADLINES = (
    "Eq 16: exponential weights minimise ⟨q, L⟩ + KL(q‖p)/η over the simplex",
    "Eq 44, sections 3.2 and 4.5: the expected loss falls monotonically in training",
    "Eq 69: a jump escapes with probability at least 1 − exp(−Δ²/(2ε²σ²))",
    "Figure 2A: QIASO converges to a low-loss region of 30-D Rastrigin",
    "Figure 4: QIASO's loss falls monotonically (QIASO, faithful)",
    "Table 2: QIASO reaches 98.9 % on mnist (QIASO, node space)",
    "Table 2: QIASO reaches 98.9 % on mnist (QIASO, node space, 512-256, augmented)",
    "Table 2: QIASO reaches 89.3 % on cifar10 "
    "(QIASO, hybrid with Muon, K = 2, 24-64²-256⁴, augmented)",
    "Table 4: p between 0.004 and 0.028",
    "Table 2: an epoch costs 9 % more than Adam's (QIASO, node space)",
)
"""The claims on the first page, of all that the ledger has."""
COLUMNS = ("the paper says", "verdict", "we find", "where")
PROFILES = """\
Profiles differ in epochs, seeds and subset only. `full` is the paper's protocol, 100
epochs and 10 seeds; `cpu` is what two cores do in hours: the full protocol on MNIST for
whatever takes gradients and for node space, less for the rest. Each row says how it was
trained.
"""


def write(results: Path, docs: Path, modules: Mapping[str, ModuleType]) -> Path:
    """Writes the pages and their figures into ``docs``; returns the first page.

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
    folder = docs / FOLDER
    folder.mkdir(exist_ok=True)
    records.write_text(folder / "ledger.md", ledger(sections))
    forms = f"# How it was trained\n\n{PROFILES}\n## The forms of QIASO\n\n{LEGEND}"
    records.write_text(folder / "forms.md", forms)
    for name, section in sections.items():
        records.write_text(folder / f"{name}.md", chapter(name, stored[name], section))
    page = docs / PAGE
    absent = [name for name in modules if name not in stored]
    records.write_text(page, verdict(sections, absent))
    return page


def draw(folder: Path, sections: Mapping[str, Section]) -> None:
    """Writes all figures; the same numbers give the same files."""
    folder.mkdir(parents=True, exist_ok=True)
    for section in sections.values():
        for file, figure in section.figures.items():
            plot.save(figure, folder / file)


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


def verdict(sections: Mapping[str, Section], absent: Sequence[str]) -> str:
    """The first page: how many claims hold, those that matter most, and the pages."""
    verdicts = [(v, name) for name, s in sections.items() for v in s.verdicts]
    counts = Counter(v.word for v, _ in verdicts)
    found = {v.claim: claim(v, f"{FOLDER}/{name}.md") for v, name in verdicts}
    headlines = [found[each] for each in HEADLINES if each in found]
    pages = [
        (f"[{section.title}]({FOLDER}/{name}.md)", counted(section.verdicts))
        for name, section in sections.items()
    ]
    parts = [
        INTRODUCTION,
        f"## The verdict on {len(verdicts)} claims\n",
        table(
            ("verdict", "claims", "what it says"),
            [(f"**{w}**", counts[w], said) for w, said in WORDS.items() if counts[w]],
        ),
        f"All of them are in [the ledger]({FOLDER}/ledger.md); how the optimizers were "
        f"set and trained, and what *faithful*, *working* and *node space* are, is in "
        f"[how it was trained]({FOLDER}/forms.md).\n",
        "## What matters most\n",
        table(COLUMNS, headlines),
        "## Table by table\n",
        table(("page", "verdicts"), pages),
    ]
    if absent:
        commands = "".join(f"- `python -m benchmarks.paper {n}`\n" for n in absent)
        parts.append(f"## Not measured\n\n{commands}")
    return "\n".join(parts)


def ledger(sections: Mapping[str, Section]) -> str:
    """All verdicts in one table, with the page of each."""
    rows = [claim(v, f"{name}.md") for name, s in sections.items() for v in s.verdicts]
    summary = counted([v for section in sections.values() for v in section.verdicts])
    return f"# Ledger\n\n{len(rows)} claims: {summary}.\n\n" + table(COLUMNS, rows)


def claim(verdict: Verdict, page: str) -> tuple[str, ...]:
    """One line about a claim."""
    name = page.rpartition("/")[2].removesuffix(".md")
    return verdict.claim, f"**{verdict.word}**", verdict.found, f"[{name}]({page})"


def counted(verdicts: Sequence[Verdict]) -> str:
    """How many verdicts there are of each kind."""
    counts = Counter(verdict.word for verdict in verdicts)
    return ", ".join(f"{counts[word]} {word}" for word in WORDS if counts[word])


def chapter(name: str, content: dict[str, Any], section: Section) -> str:
    """The page of one table or figure, with where its numbers come from."""
    machine = content["machine"]
    device = machine["device"] if machine["backend"] != "cpu" else machine["cpu"]
    parts = [
        f"# {section.title}\n",
        f"`python -m benchmarks.paper {name} --profile {content['profile']}` "
        f"({device}, {machine['cores']} cores, jax {content['versions']['jax']}, "
        f"revision {str(content['revision'])[:12]}, {content['date'][:10]})\n",
    ]
    if section.verdicts:
        rows = [(v.claim, f"**{v.word}**", v.found) for v in section.verdicts]
        parts += ["## Claims\n", table(COLUMNS[:3], rows), "## Measured\n"]
    parts.append(section.body)
    parts += [f"![{section.title}](../figures/{file})\n" for file in section.figures]
    return "\n".join(parts)
