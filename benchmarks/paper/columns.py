"""Tables whose columns are made of rows, as they are stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from benchmarks.markdown import table
from benchmarks.paper.forms import FORMS

Row: TypeAlias = Mapping[str, Any]
Cell: TypeAlias = str | Callable[[Row], object]
"""A format string with the keys of a row, or what makes a cell of it."""


def tabulated(rows: Iterable[Row], *columns: tuple[str, Cell]) -> str:
    """A Markdown table: heading and cells of each of ``columns``."""
    lines = [[filled(cell, row) for _, cell in columns] for row in rows]
    return table([heading for heading, _ in columns], lines)


def by_dataset(rows: Iterable[Row], *columns: tuple[str, Cell]) -> str:
    """One such table for each dataset, under its name."""
    datasets: dict[str, list[Row]] = {}
    for row in rows:
        datasets.setdefault(row["dataset"], []).append(row)
    return "\n".join(
        f"### {name}\n\n{tabulated(some, *columns)}" for name, some in datasets.items()
    )


def filled(cell: Cell, row: Row) -> object:
    """What stands in the cell of one row."""
    return cell.format_map(row) if isinstance(cell, str) else cell(row)


def ours(cell: Cell) -> Cell:
    """A cell that is empty in rows that were not run."""
    return lambda row: "" if "missing" in row else filled(cell, row)


def label(row: Row) -> str:
    """What the form of a row is called."""
    return FORMS[row["form"]].label


def protocol(row: Row) -> str:
    """How a row was trained, or what that would take."""
    return row["missing"] if "missing" in row else row["protocol"]
