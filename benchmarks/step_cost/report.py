"""The tables, the figures and the targets of ``python -m benchmarks.step_cost``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from benchmarks.markdown import table
from benchmarks.step_cost import measure
from benchmarks.step_cost.measure import MIB
from qiaso_jax import plot

UNITS = ("evaluation", "inference", "Adam")

NOTES = """\
Medians over {rounds} rounds or fewer, in which all of a table take turns; a ratio is
the median of the ratios within a round. Parameters and states are not donated.

- *evaluation*: the losses of K dense candidates that lie ready. All at once by
  `jax.vmap` or one by one by `jax.lax.map`, whichever is faster: evosax's methods
  evaluate theirs in the same way.
- *inference*: one forward pass of K minibatches with the same weights, and K losses.
- *Adam*: a gradient and a step, of one minibatch.
- *gaussian*, *rademacher*, *low_rank*: `qiaso(directions=...)` with no inner optimizer;
  *in n*: `candidate_batch_size=n`.
- *printed form*: `qiaso(**PAPER)`, the mean over ten steps with one collapse, every
  candidate tunnelling in each.
- *Open-ES*, *SNES*, *Sep-CMA-ES*: evosax, ask, evaluate and tell.
- *temporaries*, *outputs*: of the compiled program.
"""


def page(settings: Mapping[str, Any], content: Mapping[str, Any], met: str) -> str:
    """Everything as Markdown; ``met`` says which targets are."""
    parts = ["# What a step costs", "", NOTES.format(rounds=settings["rounds"])]
    parts += ["## Targets", "", met]
    for name, found in content["networks"].items():
        parts += [
            f"## {name}: {found['parameters']:,} parameters, "
            f"minibatch of {found['batch_size']}",
            "",
            ways(found),
            "",
        ]
        for number, rows in found["candidates"].items():
            parts += [f"### K = {number}", "", of_methods(rows)]
    if content["memory"]:
        parts += ["## Memory at equal chunks", "", of_memory(content["memory"])]
    parts += ["## Exponents", "", of_exponents(content["exponents"])]
    return "\n".join([*parts, "Written by `python -m benchmarks.step_cost`.", ""])


def ways(found: Mapping[str, Any]) -> str:
    """How many candidates of each method are evaluated at a time."""
    each = {"evaluation": found["evaluation"]} | found["chunks"]
    text = ", ".join(f"{name} {number or 'all'}" for name, number in each.items())
    return f"Candidates at a time, or all where they are fewer: {text}."


def of_methods(rows: Mapping[str, Any]) -> str:
    """One line for each method."""
    columns = ["", "ms", *(f"× {unit}" for unit in UNITS)]
    columns += ["temporaries, MiB", "outputs, MiB", "compilation, s"]
    return table(columns, map(_line, rows, rows.values()), numbers=True)


def _line(name: str, row: Mapping[str, Any]) -> list[str]:
    if "skipped" in row:
        return [name, row["skipped"], *[""] * (len(UNITS) + 3)]
    ratios = (row["ratios"].get(unit) for unit in UNITS)
    return [
        name,
        f"{1e3 * row['seconds']:.3g}",
        *("" if each is None else f"{each:.2f}" for each in ratios),
        f"{row['temporary_bytes'] / MIB:.1f}",
        f"{row['output_bytes'] / MIB:.1f}",
        f"{row['compile_seconds']:.1f}",
    ]


def of_memory(memory: Mapping[str, Any]) -> str:
    """Temporaries and outputs at two numbers of candidates, MiB."""
    rows = [
        [name, *(f"{each / MIB:.2f}" for each in found["bytes"].values())]
        for name, found in memory.items()
    ]
    numbers = next(iter(memory.values()))["bytes"]
    return table(["MiB", *(f"K = {number}" for number in numbers)], rows, numbers=True)


def of_exponents(exponents: Mapping[str, Any]) -> str:
    """How seconds grow: in candidates for each network, in weights and examples."""
    names = list(dict.fromkeys(name for each in exponents.values() for name in each))
    rows = [
        [name, *(_number(exponents[axis].get(name)) for axis in exponents)]
        for name in names
    ]
    return table(["", *exponents], rows, numbers=True)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def cost(networks: Mapping[str, Any]) -> Figure:
    """Seconds of a step."""
    return _by_method(networks, "seconds of a step", lambda row: row["seconds"])


def memory(networks: Mapping[str, Any]) -> Figure:
    """Temporaries and outputs, in MiB."""
    label = "temporaries and outputs of a step (MiB)"
    return _by_method(networks, label, measure.mebibytes)


@plot.style()
def _by_method(networks: Mapping[str, Any], label: str, value: Any) -> Figure:
    """A panel for each network with a line for each method, a mark for each K."""
    lines = [len(next(iter(n["candidates"].values()))) for n in networks.values()]
    size = plot.WIDTH, 0.9 + 0.75 * len(lines) + 0.23 * sum(lines)
    drawing = Figure(figsize=size, layout="constrained")
    panels: Any = drawing.subplots(
        len(lines), 1, squeeze=False, sharex=True, height_ratios=lines
    )
    numbers = sorted({int(k) for n in networks.values() for k in n["candidates"]})
    for axes, (network, found) in zip(panels[:, 0], networks.items(), strict=True):
        names = list(next(iter(found["candidates"].values())))
        for number, rows in found["candidates"].items():
            index = numbers.index(int(number))
            points = [
                (value(rows[name]), place)
                for place, name in enumerate(names)
                if "skipped" not in rows[name]
            ]
            axes.plot(
                *zip(*points, strict=True),
                linestyle="",
                marker="os^Dv"[index % 5],
                color=plot.COLOURS[index % len(plot.COLOURS)],
                markersize=6,
                label=f"K = {number}",
            )
        axes.set_yticks(range(len(names)), names)
        axes.set(title=network, ylim=(len(names) - 0.5, -0.5), xscale="log")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    panels[-1, 0].set_xlabel(label)
    plot.caption(drawing, "Methods, their settings and the machine are in table.md.")
    return drawing
