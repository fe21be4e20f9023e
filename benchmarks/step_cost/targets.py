"""What a step is to cost, and whether it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.markdown import table
from benchmarks.step_cost import measure
from benchmarks.step_cost.methods import named


class Target(NamedTuple):
    """A figure of the measurements, and what it is to be at most, or at least."""

    of: str
    limit: float
    value: Callable[[Mapping[str, Any]], float]
    at_least: bool = False


class Verdict(NamedTuple):
    """A target beside what was measured; ``None`` where that was not."""

    of: str
    wanted: str
    measured: float | None
    passed: bool | None

    @property
    def cells(self) -> list[str]:
        """What was wanted, measured and found."""
        if self.measured is None:
            return [self.of, self.wanted, "not measured", ""]
        found = "pass" if self.passed else "fail"
        return [self.of, self.wanted, f"{self.measured:.3g}", found]


def verdicts(content: Mapping[str, Any]) -> list[Verdict]:
    """Every target, against what ``results.json`` holds."""
    found = []
    for target in TARGETS:
        sign = "≥" if target.at_least else "≤"
        wanted = f"{sign} {target.limit:g}"
        try:
            value = target.value(content)
        except KeyError:  # It was not asked for, or did not fit.
            found.append(Verdict(target.of, wanted, None, None))
            continue
        passed = value >= target.limit if target.at_least else value <= target.limit
        found.append(Verdict(target.of, wanted, measure.significant(value), passed))
    return found


def as_table(found: Sequence[Verdict]) -> str:
    """The verdicts as Markdown."""
    columns = ["", "target", "measured", ""]
    return table(columns, (verdict.cells for verdict in found))


def _rows(content: Mapping[str, Any], network: str, number: int) -> Mapping[str, Any]:
    return content["networks"][network]["candidates"][str(number)]


def _times(network: str, method: str, unit: str, number: int = 30) -> Any:
    """Seconds of ``method`` in those of ``unit``, by rounds."""

    def value(content: Mapping[str, Any]) -> float:
        rows = _rows(content, network, number)
        times, ours = rows[unit]["seconds_of_rounds"], rows[method]["seconds_of_rounds"]
        return measure.ratio(ours, times)

    return value


def _throughput(content: Mapping[str, Any]) -> float:
    return _times("transformer", "inference", "low_rank")(content)


def _memory_of_rival(content: Mapping[str, Any]) -> float:
    rows = _rows(content, "mlp", 128)
    return measure.mebibytes(rows["low_rank"]) / measure.mebibytes(rows["Open-ES"])


def _growth(name: str) -> Any:
    """Memory at the larger number of candidates in units of that at the smaller."""

    def value(content: Mapping[str, Any]) -> float:
        least, most = content["memory"][name]["bytes"].values()
        return most / least

    return value


TARGETS = (
    Target("mlp, K = 30: low_rank / evaluation", 0.5,
           _times("mlp", "low_rank", "evaluation")),
    Target("mlp, K = 30: rademacher / evaluation", 1.5,
           _times("mlp", "rademacher", "evaluation")),
    Target("mlp, K = 30: gaussian / evaluation", 3,
           _times("mlp", "gaussian", "evaluation")),
    Target("mlp, K = 30: printed form / evaluation", 5,
           _times("mlp", "printed form", "evaluation")),
    Target("mlp, K = 30: rademacher in chunks of six / whole", 1.2,
           _times("mlp", named("rademacher", 6), "rademacher")),
    Target("mlp, K = 30: gaussian in chunks of six / whole", 1.8,
           _times("mlp", named("gaussian", 6), "gaussian")),
    Target("mlp, K = 30: low_rank / Open-ES", 0.12,
           _times("mlp", "low_rank", "Open-ES")),
    Target("mlp, K = 128: memory of low_rank / of Open-ES", 0.25, _memory_of_rival),
    Target("cnn, K = 30: low_rank / inference", 2.0,
           _times("cnn", "low_rank", "inference")),
    Target("transformer, K = 30: throughput of low_rank / of inference", 0.9,
           _throughput, at_least=True),
    *(
        Target(f"{name}: memory at K = 512 / at K = 30", 1.1, _growth(name))
        for name in (
            "mlp, gaussian in 6", "mlp, rademacher in 6", "mlp, low_rank in 6",
            "transformer, low_rank in 6",
        )
    ),
)  # fmt: skip
