"""The suites that optax runs on its own optimizers, run on ours.

They ship inside the optax wheel. ``ContribTest`` tests what stands in the slots of
``optax.contrib``: one of them, ``sophia``, whose tests already pass the objective to
``update``, is given our optimizers instead. The optimizers of ``Float64Test`` and
``ShardingTest`` are bound to the tests; ours are bound in their place.

Settings: σ annealed from 0.1 by a factor e every 3,000 steps, and Adam at the rate of
the slot, 1e-2, on the displacement. K is what the narrow valley of ``ContribTest``
takes within 3e-2 in the 30,000 steps it gives: 30 for ``qiaso``, 16 for ``node_qiaso``,
2 for ``factorised_qiaso``, which has as many for each weight. ``set_to_zero`` drops the
gradients that the suites pass, so that what is tested is gradient-free.
"""

import multiprocessing
import unittest
from concurrent.futures import ProcessPoolExecutor
from unittest import mock

import jax
import jax.numpy as jnp
import optax
import pytest
from optax._src import float64_test, utils
from optax.contrib import _common_test

import qiaso_jax

pytestmark = pytest.mark.slow

# 0.2.6 has no tests of sharding, and 0.2.7 is not imported under JAX 0.10.2.
pytest.importorskip("optax", minversion="0.2.8")

SLOT = "sophia"


def sum_of_squares(params):
    return optax.tree.norm(params, squared=True)


def for_suite(tx, arguments):
    """``tx`` without gradients, for the objective passed, or one where none is."""
    tx = optax.chain(optax.set_to_zero(), tx)

    def update(updates, state, params=None, *, obj_fn=sum_of_squares, **extra_args):
        return tx.update(updates, state, params, **arguments(obj_fn), **extra_args)

    return optax.GradientTransformationExtraArgs(tx.init, update)


def sigma():
    return optax.exponential_decay(0.1, 3_000, 0.37)


def one_loss(objective):
    return {"value_fn": objective}


def batch_of_one(objective):
    def losses(params, offset):
        return objective(params) + offset

    return {"value_fn": losses, "offset": jnp.zeros(1, jnp.int8)}


def qiaso(learning_rate: optax.ScalarOrSchedule):
    tx = qiaso_jax.qiaso(sigma=sigma(), optimizer=optax.adam(learning_rate))
    return for_suite(tx, one_loss)


def node_qiaso(learning_rate: optax.ScalarOrSchedule):
    tx = qiaso_jax.node_qiaso(
        16,
        sigma(),
        optimizer=optax.adam(learning_rate),
        examples=1.0,
        space="weights",
    )
    return for_suite(tx, batch_of_one)


def factorised_qiaso(learning_rate: optax.ScalarOrSchedule):
    tx = qiaso_jax.factorised_qiaso(2, sigma(), optimizer=optax.adam(learning_rate))
    return for_suite(tx, one_loss)


OPTIMIZERS = [qiaso, node_qiaso, factorised_qiaso]


def failures(test: unittest.TestCase) -> list[str]:
    """What went wrong in a test of a suite; what it leaves out counts too."""
    result = unittest.TestResult()
    with jax.numpy_rank_promotion("allow"):
        test.run(result)
    assert result.testsRun == 1
    return [text for _, text in result.failures + result.errors + result.skipped]


def bound(case, name, *arguments) -> unittest.TestCase:
    """A test of a suite, of these arguments in place of those that optax binds."""
    test = getattr(case, name).__wrapped__
    return type("Bound", (case,), {name: lambda self: test(self, *arguments)})(name)


def names_of_slot():
    described = _common_test.ContribTest._test_params_reprs
    return sorted(name for name, values in described.items() if f"'{SLOT}'" in values)


def names_for(case, optimizer):
    """The tests of a suite that optax binds to one of its optimizers."""
    return [name for name in dir(case) if name.endswith(f"_{optimizer}")]


def test_the_suite_has_the_slot():
    described = _common_test.ContribTest._test_params_reprs
    assert len(names_of_slot()) == 16
    assert any("float64" in described[name] for name in names_of_slot())


def nights(optimizer, name):
    """Convergence, over 30,000 steps, of all but one is for the night."""
    converges = name.removeprefix("test_optimizers").isdigit()
    long = converges and optimizer is not qiaso
    return pytest.mark.nightly if long else ()


@pytest.mark.parametrize(
    ("optimizer", "name"),
    [
        pytest.param(optimizer, name, marks=nights(optimizer, name))
        for optimizer in OPTIMIZERS
        for name in names_of_slot()
    ],
)
def test_contrib_suite(optimizer, name, monkeypatch):
    monkeypatch.setattr(optax.contrib, SLOT, optimizer)
    assert failures(_common_test.ContribTest(name)) == []


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_float64_suite(optimizer):
    case = float64_test.Float64Test
    (name,) = names_for(case, "adamw")
    with utils.x64_precision():  # ends with the test, also where it fails
        assert failures(bound(case, name, optimizer, {"learning_rate": 0.1})) == []


def sharding_case():
    # The import asks for eight devices, which is heard by a process that has not yet
    # used any, and by those that it starts.
    from optax._src import sharding_test

    return sharding_test.ShardingTest


def sharding_names():
    return names_for(sharding_case(), "adamw")


def sharding_failures(optimizer, name):
    case = sharding_case()
    # optax compares versions as strings, by which 0.10 is older than 0.7.
    with mock.patch.object(jax, "__version__", "9"):
        return failures(bound(case, name, optimizer(0.1)))


SHARDING = [
    "test_init_with_abstract_input_adamw",
    "test_state_sharding_type_init_match_update_adamw",
    "test_state_sharding_type_preserved_with_jit_adamw",
]


@pytest.fixture(scope="module")
def eight_devices():
    """A process of its own, as the number of devices is settled at their first use."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as process:
        yield process


def test_the_sharding_suite_has_no_other_tests(eight_devices):
    assert eight_devices.submit(sharding_names).result() == SHARDING


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", SHARDING)
def test_sharding_suite(optimizer, name, eight_devices):
    assert eight_devices.submit(sharding_failures, optimizer, name).result() == []
