"""The list of the paper's claims: which hold, and that words follow from numbers."""

import copy
import json

import jax
import numpy as np
import pytest
import scipy.stats

from benchmarks.paper import theory
from benchmarks.paper.runs import rounded
from benchmarks.paper.theory import amplitudes
from benchmarks.paper.theory.claims import SMOKE, TOLERANCE, holds, inequality

pytestmark = pytest.mark.slow

CLAIMS = [(part, claim) for part, claims in theory.CLAIMS.items() for claim in claims]
WRONG = {
    "Eq 2",
    "Lemma 2.1, Eq 33, 38",
    "Eq 44, sections 3.2 and 4.5",
    "Eq 59",
    "Eq 57, A5",
    "Abstract, Theorem 3.2",
    "Eq 69",
    "Eq 68 for ε‖ξ‖",
    "Section 3.2.3",
}
CONTRADICTORY = {
    "Eq 1, 42 against 4, 50",
    "Eq 27–29, 31 against 30",
    "A4 against section 4.5",
    "Section 4.1 against Figure 3",
    "Section 2, T(θ)",
    "Eq 69 against section 3.2.3",
}


@pytest.fixture(scope="module")
def content():
    """The smallest measurement, as it would be read back."""
    with jax.numpy_rank_promotion("allow"):
        measured = {name: part(SMOKE) for name, part in theory.MEASURE.items()}
    return json.loads(json.dumps(rounded(measured), allow_nan=False))


def words(content):
    """The words for all claims, by where the paper makes them."""
    return {claim.where: outcome.word for claim, outcome in theory.checked(content)}


@pytest.mark.parametrize(("part", "claim"), CLAIMS, ids=[c.where for _, c in CLAIMS])
def test_theorems_hold_and_what_has_a_counter_example_falls(content, part, claim):
    """Estimates fail wrongly with probability below 1e-5 (5 σ, a dozen times)."""
    expected = (
        "wrong"
        if claim.where in WRONG
        else "contradictory"
        if claim.where in CONTRADICTORY
        else "reproduced"
    )
    assert claim.check(content[part]).word == expected


def test_the_exceptions_are_on_the_list():
    where = [claim.where for _, claim in CLAIMS]
    assert len(set(where)) == len(where)
    assert {*WRONG, *CONTRADICTORY} <= {*where}


def test_every_claim_is_in_the_table_and_the_ledger(content):
    section = theory.section(content)
    assert len(section.verdicts) == len(CLAIMS)
    for verdict, (_, claim) in zip(section.verdicts, CLAIMS, strict=True):
        assert verdict.claim == f"{claim.where}: {claim.statement}"
        assert "|" not in verdict.claim + verdict.found
        assert f"\n| {claim.where} | " in section.body
    assert section.figures.keys() == {"theory_escape.svg"}


def test_simulated_escapes_agree_with_scipy(content):
    """Fails wrongly with probability below 1e-5 (5 σ, a dozen times)."""
    escape = content["escape"]
    draws = escape["draws"]
    for exact, simulated in [
        (scipy.stats.norm.sf(b["z"]), b["simulated"]) for b in escape["barriers"]
    ] + [(scipy.stats.chi2.sf(4.0, n["n"]), n["simulated"]) for n in escape["norms"]]:
        error = np.sqrt(exact * (1 - exact) / draws)
        assert abs(simulated - exact) <= 5 * error + 1e-5
    np.testing.assert_allclose(escape["crossing"], 0.7286, atol=1e-4)


def test_minibatches_break_the_decrease_and_fixed_losses_do_not(content):
    rising = content["monotone"]["rising"]
    assert rising["amplification alone"][0] == 0
    assert rising["amplification alone"][1] > 0.02
    assert rising["all three"][0] > 0


def test_jumps_have_a_bias_at_a_minimum(content):
    """30 weights, curvature 2 + 40 π² in each, ε = 0.02."""
    mean, error = content["limits"]["drift"]["at the minimum"]
    expected = 30 * (0.02**2 + 10 * (1 - np.exp(-2 * (0.02 * np.pi) ** 2)))
    assert abs(mean - expected) < 5 * error


@pytest.mark.parametrize(
    ("path", "value", "where", "expected"),
    [
        (("amplitudes", "violations", "pinsker"), 1e-3, "Remark 2.1", "wrong"),
        (
            ("amplitudes", "violations", "loss_bound"),
            0.0,
            "Lemma 2.1, Eq 33, 38",
            "reproduced",
        ),
        (("amplitudes", "violations", "minimiser"), 0.1, "Eq 16", "wrong"),
        (
            ("monotone", "rising"),
            {"amplification alone": [0.0, 0.0], "all three": [0.0, 0.0]},
            "Eq 44, sections 3.2 and 4.5",
            "reproduced",
        ),
        (
            ("limits", "limit", "local_minimum"),
            [1e9, 1e9],
            "Abstract, Theorem 3.2",
            "reproduced",
        ),
        (
            ("escape", "gate", "as_printed"),
            [1, 2, 3, 4, 5, 6],
            "Section 2, T(θ)",
            "reproduced",
        ),
        (("escape", "barriers", 0, "errors_away"), -6, "Eq 67", "wrong"),
        (("escape", "barriers", 0, "eq68"), 0.1, "Eq 68", "wrong"),
    ],
)
def test_verdicts_follow_the_numbers(content, path, value, where, expected):
    changed = copy.deepcopy(content)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    assert words(content)[where] != expected
    assert words(changed)[where] == expected


def test_eq_69_is_wrong_only_where_it_exceeds_the_exact_probability(content):
    changed = copy.deepcopy(content)
    for barrier in changed["escape"]["barriers"]:
        barrier["eq69"] = barrier["lower"]
    assert words(changed)["Eq 69"] == "reproduced"
    assert words(changed)["Eq 69 against section 3.2.3"] == "reproduced"


def test_minimiser_finds_a_known_answer():
    losses, p = np.array([0.0, 1.0]), np.array([0.5, 0.5])
    q = amplitudes.minimiser(losses, p, np.log(3.0))
    np.testing.assert_allclose(q, [0.75, 0.25], atol=1e-8)


def test_words_of_a_violation():
    assert holds(TOLERANCE / 2) == "reproduced"
    assert holds(0.0, 2 * TOLERANCE) == "wrong"
    assert inequality(-0.5) == "never violated"
    assert "rounding" in inequality(1e-16)
    assert inequality(0.25).startswith("violated by up to 0.25")
