import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qiaso_jax.evaluation import Objective, candidate_losses
from qiaso_jax.superposition import Superposition, stored

CENTRE = {"w": jnp.arange(6.0).reshape(2, 3), "n": None}


def loss(params, x, scale=1.0):
    return scale * jnp.sum(jnp.tanh(params["w"] @ x)) + 5


@pytest.fixture
def offsets():
    return Superposition(7, True, False).offsets(
        jax.random.key(0), CENTRE, {"w": 0.3, "n": None}
    )


@pytest.mark.parametrize("batch_size", [None, 1, 3, 7, 10])
def test_every_candidate_is_evaluated_on_the_same_arguments(offsets, batch_size):
    x = jnp.array([1.0, -2.0, 0.5])
    objective = Objective(loss, None, {"x": x, "scale": 2.0})
    losses = candidate_losses(stored(offsets, 7, batch_size), CENTRE, objective)
    w = np.float64(CENTRE["w"]) + np.float64(offsets["w"])
    expected = 2 * np.tanh(w @ np.float64(x)).sum(axis=1) + 5
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("value", "error", "sentence"),
    [
        (jnp.zeros(3), ValueError, r"value_fn must return a scalar, got shape \(3,\)"),
        ((jnp.zeros(()), {}), TypeError, "got a tuple; with has_aux=True"),
        (jnp.zeros((), complex), TypeError, "real floating dtype, got complex64"),
        (jnp.zeros((), int), TypeError, "real floating dtype, got int32"),
        (None, TypeError, "got a NoneType"),
        (3, TypeError, "got a int"),
    ],
)
@pytest.mark.parametrize("batch_size", [None, 2])
def test_a_wrong_loss_is_named(offsets, value, error, sentence, batch_size):
    with pytest.raises(error, match=sentence):
        candidate_losses(
            stored(offsets, 7, batch_size),
            CENTRE,
            Objective(lambda params: value, None, {}),
        )
