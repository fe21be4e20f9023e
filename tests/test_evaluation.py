import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qiaso_jax import evaluation
from qiaso_jax.superposition import Superposition

CENTRE = {"w": jnp.arange(6.0).reshape(2, 3), "n": jnp.array([2, 3])}
INDICES = jnp.arange(7)


def loss(params, x, scale=1.0):
    return scale * jnp.sum(jnp.tanh(params["w"] @ x)) + jnp.sum(params["n"])


@pytest.fixture
def offsets():
    return Superposition(7, True, False).offsets(jax.random.key(0), CENTRE, 0.3)


def stored(k, offset):
    return offset


@pytest.mark.parametrize("batch_size", [None, 1, 3, 7, 10])
def test_every_candidate_is_evaluated_on_the_same_arguments(offsets, batch_size):
    x = jnp.array([1.0, -2.0, 0.5])
    losses = evaluation.candidate_losses(
        loss, CENTRE, (INDICES, offsets), stored, batch_size, x=x, scale=2.0, unknown=1
    )
    w = np.float64(CENTRE["w"]) + np.float64(offsets["w"])
    expected = 2 * np.tanh(w @ np.float64(x)).sum(axis=1) + 5
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


@pytest.mark.parametrize("batch_size", [None, 1, 3, 7, 10])
def test_the_weighted_offset_is_a_weighted_sum(offsets, batch_size):
    weights = np.random.default_rng(0).dirichlet(np.ones(7)).astype(np.float32)
    total = evaluation.weighted_offset(
        jnp.asarray(weights), CENTRE, (INDICES, offsets), stored, batch_size
    )
    expected = np.einsum("k,kij->ij", np.float64(weights), np.float64(offsets["w"]))
    np.testing.assert_allclose(total["w"], expected, atol=1e-6)
    np.testing.assert_array_equal(total["n"], [0, 0])
    assert total["n"].dtype == CENTRE["n"].dtype


def test_half_precision_offsets_are_summed_in_the_precision_of_the_weights():
    # 0.001 added 1,000 times to bfloat16 would stop growing at 0.25.
    candidates = (jnp.arange(1000), jnp.full((1000, 1), 1.0, jnp.bfloat16))
    total = evaluation.weighted_offset(
        jnp.full((1000,), 1e-3), jnp.zeros(1, jnp.bfloat16), candidates, stored, 10
    )
    assert total.dtype == jnp.bfloat16
    assert float(total[0]) == pytest.approx(1, abs=1e-2)


def test_only_named_arguments_are_forwarded():
    given = {"a": 1, "b": 2, "params": 3}
    accepted = evaluation.accepted_arguments
    assert accepted(lambda params, a: 0, given) == {"a": 1}
    assert accepted(lambda p, *, b, a=0: 0, given) == {"a": 1, "b": 2}
    assert accepted(lambda p, **kwargs: 0, given) == given
    assert accepted(lambda p, a, /: 0, given) == {}
    assert accepted(jax.jit(lambda p, b: 0), given) == {"b": 2}


@pytest.mark.parametrize(
    ("value", "error", "sentence"),
    [
        (jnp.zeros(3), ValueError, r"value_fn must return a scalar, got shape \(3,\)"),
        ((jnp.zeros(()), {}), TypeError, "got a tuple .auxiliary outputs"),
        (jnp.zeros((), complex), TypeError, "real floating dtype, got complex64"),
        (jnp.zeros((), int), TypeError, "real floating dtype, got int32"),
        (None, TypeError, "got a NoneType"),
        (3, TypeError, "got a int"),
    ],
)
@pytest.mark.parametrize("batch_size", [None, 2])
def test_a_wrong_loss_is_named(offsets, value, error, sentence, batch_size):
    with pytest.raises(error, match=sentence):
        evaluation.candidate_losses(
            lambda params: value, CENTRE, (INDICES, offsets), stored, batch_size
        )
