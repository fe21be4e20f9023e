"""Every lemma, theorem and bound of the paper, on random instances and runs."""

from __future__ import annotations

from typing import Any

from benchmarks.markdown import table
from benchmarks.paper.section import Section, Verdict
from benchmarks.paper.study import Study
from benchmarks.paper.theory import (
    amplitude_claims,
    amplitudes,
    escape,
    escape_claims,
    limits,
    monotone,
)
from benchmarks.paper.theory.claims import SIZES, SMOKE, Claim, Outcome

MEASURE = {
    "amplitudes": amplitudes.measure,
    "monotone": monotone.measure,
    "limits": limits.measure,
    "escape": escape.measure,
}
CLAIMS: dict[str, list[Claim]] = {
    "amplitudes": amplitude_claims.CLAIMS,
    "monotone": monotone.CLAIMS,
    "limits": limits.CLAIMS,
    "escape": escape_claims.CLAIMS,
}

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
    """What the claims are checked on; ``smoke`` tries fewer instances and steps."""
    sizes = SMOKE if study.profile == "smoke" else SIZES
    return {name: part(sizes) for name, part in MEASURE.items()}


def checked(content: dict[str, Any]) -> list[tuple[Claim, Outcome]]:
    """Every claim with what came out, in the order of the paper."""
    return [
        (claim, claim.check(content[name]))
        for name, claims in CLAIMS.items()
        for claim in claims
    ]


def section(content: dict[str, Any]) -> Section:
    """How all claims were tested, and the tables behind some of them."""
    outcomes = checked(content)
    parts = (
        INTRODUCTION,
        table(
            ("where", "tested on"),
            [(claim.where, test) for claim, (test, _, _) in outcomes],
        ),
        monotone.body(content["monotone"]),
        escape_claims.body(content["escape"]),
        REMARKS,
    )
    return Section(
        title="Lemmas, theorems and bounds",
        body="\n".join(parts),
        verdicts=[
            Verdict(f"{claim.where}: {claim.statement}", found, word)
            for claim, (_, found, word) in outcomes
        ],
        figures={"theory_escape.svg": escape_claims.figure(content["escape"])},
    )
