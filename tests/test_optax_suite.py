"""The suite that optax runs on the optimizers of its contrib module, run on qiaso.

The suite ships inside the optax wheel. One of its slots, ``sophia``, whose tests
already pass the objective to ``update``, is given our optimizer instead.

Settings: K = 30, σ annealed from 0.1 by a factor e every 3,000 steps, and Adam at the
rate of the slot, 1e-2, on the displacement. ``set_to_zero`` drops the gradients that
the suite passes, so that what is tested is gradient-free.
"""

import unittest

import jax
import optax
import pytest
from optax.contrib import _common_test

import qiaso_jax

pytestmark = pytest.mark.slow

SLOT = "sophia"


def qiaso_for_suite(
    learning_rate: optax.ScalarOrSchedule,
) -> optax.GradientTransformationExtraArgs:
    tx = optax.chain(
        optax.set_to_zero(),
        qiaso_jax.qiaso(
            sigma=optax.exponential_decay(0.1, 3_000, 0.37),
            optimizer=optax.adam(learning_rate),
        ),
    )

    def update(updates, state, params=None, *, obj_fn, **extra_args):
        return tx.update(updates, state, params, value_fn=obj_fn, **extra_args)

    return optax.GradientTransformationExtraArgs(tx.init, update)


def names_of_slot():
    described = _common_test.ContribTest._test_params_reprs
    return sorted(name for name, values in described.items() if f"'{SLOT}'" in values)


def test_the_suite_has_the_slot():
    assert len(names_of_slot()) == 16


@pytest.mark.parametrize("name", names_of_slot())
def test_contrib_suite(name, monkeypatch):
    monkeypatch.setattr(optax.contrib, SLOT, qiaso_for_suite)
    result = unittest.TestResult()
    with jax.numpy_rank_promotion("allow"):
        _common_test.ContribTest(name).run(result)
    failures = [text for _, text in result.failures + result.errors]
    assert result.testsRun == 1
    assert not failures, failures[0]
    assert not result.skipped, result.skipped[0]
