import json
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cma.recombination_weights import RecombinationWeights

from benchmarks.cli import UserError
from benchmarks.coco import ablations, batched
from benchmarks.coco.ablations import REFERENCE, VARIANTS, Ablation
from benchmarks.coco.problems import GROUPS
from qiaso_jax.search import adaptive, covariance

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("size", "candidates"), [(5, 8), (20, 12), (5, 33)])
def test_logarithmic_weights_are_those_of_pycma(monkeypatch, size, candidates):
    monkeypatch.setattr(covariance, "RANK_ONE", 1.0)
    monkeypatch.setattr(covariance, "RANK_MU", 1.0)
    expected = RecombinationWeights(candidates)
    rng = np.random.default_rng(size)
    place = rng.permutation(candidates)  # of each candidate, the best is 0
    with jax.enable_x64(True):
        known = jnp.arange(candidates + 3) < candidates
        log_p = jnp.full(candidates + 3, -jnp.inf).at[:candidates].set(-place)
        p, w = ablations.logarithmic(log_p, known)
        w = ablations.tempered(covariance.FULL, size, p, w)
        rate = covariance.rates(covariance.FULL, size, 1 / jnp.sum(p**2))
    expected.finalize_negative_weights(size, float(rate.rank_one), float(rate.rank_mu))
    np.testing.assert_allclose(p[:candidates], np.maximum(expected, 0)[place])
    np.testing.assert_allclose(w[:candidates], np.array(expected)[place], rtol=1e-9)
    assert not p[candidates:].any()
    assert not w[candidates:].any()


def test_a_missing_value_has_no_weight():
    known = jnp.array([True, False, True, True])
    p, w = ablations.logarithmic(jnp.array([-2.0, 0.0, -1.0, -3.0]), known)
    # Of three, ln 2 − ln(1, 2, 3).
    np.testing.assert_allclose(p, [0, 0, 1, 0], atol=1e-7)
    np.testing.assert_allclose(w, [0, 0, 1, -1], atol=1e-6)


@pytest.fixture
def probed(monkeypatch):
    """Searches that tell their settings, in this process, in the place of values."""

    def searched(plan, domain):
        assert plan.restarts in (0, np.inf)
        assert plan.size == len(domain.start)
        own = 1e-9 if adaptive.ETA == 3.0 else 1e3

        def search(problems):
            for problem in problems:
                problem.differences = [own if problem.function < 6 else 0.0]

        return search

    def opened(suite, function, dimension, instances, reports):
        assert (suite, reports[0] % dimension) == ("bbob", 0)
        return [SimpleNamespace(function=function) for _ in instances]

    monkeypatch.setattr(batched, "searched", searched)
    monkeypatch.setattr(ablations, "opened", opened)
    monkeypatch.setattr(
        ablations,
        "ProcessPoolExecutor",
        lambda processes, context, initializer: ThreadPoolExecutor(1),
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_changes_what_there_is_and_puts_it_back(probed, variant):
    places = VARIANTS[variant].patches
    before = [getattr(module, name) for module, name, _ in places]
    found = ablations.differences(Ablation(variant, 5, (1, 2), 10))
    assert set(found) == set(GROUPS["all"])
    assert found[1] == [1e-9 if variant == "η = 3" else 1e3] * 2
    assert [getattr(module, name) for module, name, _ in places] == before
    assert all(
        value is not old for (*_, value), old in zip(places, before, strict=True)
    )


def test_the_command(probed, tmp_path, capsys):
    command = ablations.Command(
        output=tmp_path, instances=(2, 3), variants=(REFERENCE, "η = 3", "η = 8")
    )
    ablations.main(command)
    text = (tmp_path / "ablations.md").read_text()
    assert text in capsys.readouterr().out
    # All of the targets of five functions of 24 are gained, or none.
    gain, error = 5 / 24, np.std([1] * 10 + [0] * 38, ddof=1) / np.sqrt(48)
    assert f"{gain:+.3f} ± {error:.3f} |" in text
    assert text.count("| as it is | 0.000 | 1.000 |") == 2
    assert text.count("| η = 8 | +0.000 ± 0.000 |") == 2
    runs = json.loads((tmp_path / "ablations.json").read_text())["runs"]
    assert [(run["variant"], run["dimension"]) for run in runs[2:4]] == [
        ("η = 8", 5),
        (REFERENCE, 20),
    ]


def test_stored_table_is_what_the_stored_numbers_give():
    folder = ablations.Command().output
    runs = json.loads((folder / "ablations.json").read_text())["runs"]
    found = {
        Ablation(
            **{name: run[name] for name in Ablation._fields[:2]},
            instances=tuple(run["instances"]),
            evaluations=run["evaluations"],
        ): {int(f): x for f, x in run["differences"].items()}
        for run in runs
    }
    text = ablations.page(found, list(found))
    assert text == (folder / "ablations.md").read_text()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"variants": ("η = 3",)}, "--variants must be 'as it is' and others of"),
        ({"variants": (REFERENCE, "η = 4")}, "--variants must be 'as it is' and"),
        ({"instances": (3,)}, "--instances must be as many numbers as --dimensions"),
        ({"dimensions": (1, 2)}, "--dimensions must be at least 2"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, given, sentence):
    with pytest.raises(UserError, match=sentence):
        ablations.main(ablations.Command(output=tmp_path / "none", **given))
    assert not (tmp_path / "none").exists()
