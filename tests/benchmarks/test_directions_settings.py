"""``benchmarks.train --directions, --rank, --groups``."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import qiaso_jax
from benchmarks.cli import UserError
from benchmarks.harness import optimizers, settings, transformations
from benchmarks.harness.interface import Setting
from benchmarks.harness.settings import Experiment, resolved

SETTING = Setting(0.05, "constant", 0.1, 6, 1.0, 10, 100)


def chosen(**given):
    found = resolved(Experiment(learning_rate=1e-3, **given))
    return found.directions, found.rank, found.groups


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"optimizer": "qiaso"}, ("rademacher", None, 1)),
        ({"optimizer": "qiaso-low-rank"}, ("low_rank", 1, 1)),
        ({"optimizer": "qiaso-low-rank", "rank": 4}, ("low_rank", 4, 1)),
        (
            {"optimizer": "qiaso", "directions": "low_rank", "rank": 2, "groups": 4},
            ("low_rank", 2, 4),
        ),
        ({"optimizer": "adam"}, (None, None, None)),
    ],
)
def test_directions_are_those_asked_for_or_the_optimizers(given, expected):
    assert chosen(**given) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"optimizer": "adam", "directions": "gaussian"},
            "adam takes no --directions, which is for --optimizer qiaso, ",
        ),
        ({"optimizer": "pgpe", "rank": 2}, "pgpe takes no --rank"),
        ({"optimizer": "node-qiaso", "groups": 2}, "node-qiaso takes no --groups"),
        (
            {"optimizer": "qiaso", "rank": 2},
            "rademacher takes no --rank, which is for --directions low_rank",
        ),
        (
            {"optimizer": "qiaso-low-rank", "directions": "rademacher"},
            "has the directions low_rank, got rademacher: take --optimizer qiaso",
        ),
        (
            {"optimizer": "qiaso", "groups": 3},
            "--groups must divide --batch-size, 128, .*got 3",
        ),
        ({"optimizer": "qiaso", "groups": 0}, "--groups must be at least 1, got 0"),
        ({"optimizer": "qiaso", "rank": 0}, "--rank must be at least 1, got 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        chosen(**given)


def test_low_rank_directions_have_one_rate_under_both_names(monkeypatch):
    rates = {"qiaso": 1.0, "qiaso-low-rank": 2.0}
    monkeypatch.setattr(settings, "tuned_value", rates.__getitem__)

    def rate(**given):
        return resolved(Experiment(**given)).learning_rate

    assert rate(optimizer="qiaso") == 1
    assert rate(optimizer="qiaso", directions="rademacher") == 1
    assert rate(optimizer="qiaso", directions="low_rank") == 2
    assert rate(optimizer="qiaso-low-rank") == 2


@pytest.mark.parametrize(("rank", "ranks"), [(1, {1}), (3, {3})])
def test_the_rank_is_that_of_the_candidates(rank, ranks):
    setting = SETTING._replace(directions="low_rank", rank=rank)
    tx = transformations.qiaso(setting, jax.random.key(0))
    params = {"kernel": jnp.zeros((30, 20))}
    candidates = qiaso_jax.ask(tx, tx.init(params), params)["kernel"]
    assert set(np.linalg.matrix_rank(np.asarray(candidates)).tolist()) == ranks


def test_signs_are_of_one_size():
    setting = SETTING._replace(directions="rademacher")
    tx = transformations.qiaso(setting, jax.random.key(0))
    params = {"kernel": jnp.zeros((30, 20))}
    candidates = qiaso_jax.ask(tx, tx.init(params), params)["kernel"]
    np.testing.assert_allclose(abs(np.asarray(candidates)), 0.1, rtol=1e-6)


def test_one_group_asks_for_nothing_and_more_are_passed_on(monkeypatch):
    asked = []
    monkeypatch.setattr(
        transformations.qiaso_jax, "qiaso", lambda *_, **given: asked.append(given)
    )
    for groups in (1, 4):
        setting = SETTING._replace(groups=groups)
        transformations.qiaso(setting, jax.random.key(0))
    assert [given.get("groups") for given in asked] == [None, 4]


def test_groups_cost_as_many_sample_forwards_as_one():
    one = optimizers.sample_forwards("qiaso", SETTING, False)
    several = optimizers.sample_forwards("qiaso", SETTING._replace(groups=4), False)
    assert one == several == 6
