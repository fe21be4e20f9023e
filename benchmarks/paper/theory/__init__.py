"""Every lemma, theorem and bound of the paper, on random instances and runs."""

from __future__ import annotations

from typing import Any

from benchmarks.paper.section import Section
from benchmarks.paper.study import Study
from benchmarks.paper.theory import amplitudes as theory_amplitudes
from benchmarks.paper.theory import escape as theory_escape
from benchmarks.paper.theory import escape_report as theory_escape_report
from benchmarks.paper.theory import limits as theory_limits
from benchmarks.paper.theory import monotone as theory_monotone
from benchmarks.paper.theory.findings import findings_table, sizes

PARTS = {
    "amplitudes": theory_amplitudes,
    "monotone": theory_monotone,
    "limits": theory_limits,
    "escape": theory_escape,
}
REPORTS = {**PARTS, "escape": theory_escape_report}

INTRODUCTION = """\
Inequalities and equations are tested in float64 through the functions of
`qiaso_jax.theory`; a violation is relative to 1 + the size of both sides. Losses are
uniform from −10 to 10, half of them rounded so that they tie; priors are Dirichlet's;
η is log-uniform from 1/64 to 30.
"""

REMARKS = """\
Theorem 3.1 states conditions and no conclusion; Eq 52, which is Lemma 3.1 again, is
taken for it. The proof of Theorem 3.2 reads KL → 0 off Σ KL/α_t < ∞, which does not
follow (KL = 1, α_t = 2^t); for a fixed set of candidates Lemma 3.3 gives the conclusion
without it. M is the best of those K candidates, and nothing makes them local minima of
ℓ. Section 4.5 ascribes to Lemma 3.3 that perturbation keeps the dynamics ergodic; the
lemma is about η → ∞ and knows no perturbation.
"""


def measure(study: Study) -> dict[str, Any]:
    """All parts; ``smoke`` tries fewer instances, draws and steps."""
    some = sizes(study.profile)
    return {name: part.measure(some) for name, part in PARTS.items()}


def section(content: dict[str, Any]) -> Section:
    """One finding for each statement, and the tables behind some of them."""
    found = [
        finding
        for name, part in REPORTS.items()
        for finding in part.findings(content[name])
    ]
    body = "\n".join(
        [
            INTRODUCTION,
            findings_table(found),
            theory_monotone.body(content["monotone"]),
            theory_escape_report.body(content["escape"]),
            REMARKS,
        ]
    )
    return Section(
        title="Lemmas, theorems and bounds",
        body=body,
        verdicts=[finding.verdict for finding in found],
        figures={"theory_escape.png": theory_escape_report.figure(content["escape"])},
    )
