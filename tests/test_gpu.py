"""What a GPU computes against what the CPU of the same machine does."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import qiaso_jax
from qiaso_jax import words


def gpus():
    return [d for d in jax.local_devices() if d.platform == "gpu"]


pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not gpus(), reason="needs a GPU"),
]

RNG = np.random.default_rng(0)
PARAMS = {
    "kernel": RNG.normal(size=(3, 3, 2, 4)) / 4,
    "bias": np.zeros(4),
    "out": RNG.normal(size=(4 * 6 * 6, 3)) / 12,
}
X, Y = RNG.normal(size=(16, 6, 6, 2)), RNG.integers(0, 3, 16)


def losses(params, x, y):
    dimensions = ("NHWC", "HWIO", "NHWC")
    mapped = jax.lax.conv_general_dilated(
        x, params["kernel"], (1, 1), "SAME", dimension_numbers=dimensions
    )
    hidden = jnp.tanh(mapped + params["bias"][None, None, None])
    logits = hidden.reshape(hidden.shape[0], -1) @ params["out"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, y)


def loss(params, x, y):
    return jnp.mean(losses(params, x, y))


def on(device, tx, value_fn):
    """Updates, losses and log-amplitudes of one step in float32 on a device."""

    def step(params, x, y):
        state = tx.init(params)
        updates, state = tx.update(None, state, params, value_fn=value_fn, x=x, y=y)
        return updates, state.info

    arrays = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (PARAMS, X))
    (params, x), y = arrays, jnp.asarray(Y)
    with jax.default_matmul_precision("float32"):
        return jax.device_get(jax.jit(step)(*jax.device_put((params, x, y), device)))


def close(tx, value_fn):
    of_gpu, of_cpu = (
        on(device, tx, value_fn) for device in (gpus()[0], jax.devices("cpu")[0])
    )
    norm = optax.tree.norm(of_cpu[0])
    apart = optax.tree.norm(jax.tree.map(np.subtract, of_gpu[0], of_cpu[0]))
    assert apart <= 1e-3 * norm
    np.testing.assert_allclose(of_gpu[1].best_loss, of_cpu[1].best_loss, rtol=1e-4)


def test_words_bit_for_bit():
    key, rows = jax.random.key(0), jnp.arange(5)
    on_gpu, on_cpu = (
        jax.device_get(words.packed_words(*jax.device_put((key, rows), device), 77, 16))
        for device in (gpus()[0], jax.devices("cpu")[0])
    )
    np.testing.assert_array_equal(on_gpu, on_cpu)


@pytest.mark.parametrize("directions", ["gaussian", "rademacher", "low_rank"])
@pytest.mark.parametrize("batch_size", [None, 4])
def test_weight_space(directions, batch_size):
    tx = qiaso_jax.qiaso(
        16, 0.1, directions=directions, candidate_batch_size=batch_size
    )
    close(tx, loss)


@pytest.mark.parametrize("directions", ["gaussian", "rademacher"])
@pytest.mark.parametrize("space", ["node", "weights", "example"])
def test_node_space(directions, space):
    tx = qiaso_jax.node_qiaso(
        8,
        0.1,
        directions=directions,
        space=space,
        examples=1.0,
        optimizer=optax.sgd(0.1),
    )
    close(tx, losses)


def test_paper():
    close(qiaso_jax.qiaso(**qiaso_jax.PAPER), loss)


def test_no_candidate_in_memory():
    """A step of many low-rank candidates takes no memory that counts them."""
    width, number = 512, 256
    params = {"w": jnp.ones((width, width))}
    tx = qiaso_jax.qiaso(number, directions="low_rank")
    state = tx.init(params)

    def step(params, state):
        return tx.update(None, state, params, value_fn=lambda p: jnp.mean(p["w"][0]))

    compiled = (
        jax.jit(step).lower(*jax.device_put((params, state), gpus()[0])).compile()
    )
    used = compiled.memory_analysis().temp_size_in_bytes
    assert used < number * params["w"].nbytes / 8


def test_search():
    with jax.default_device(gpus()[0]):
        result = qiaso_jax.minimize(
            lambda x: jnp.sum((x - 1) ** 2),
            jnp.zeros(5),
            sigma=1.0,
            max_evaluations=4000,
        )
    np.testing.assert_allclose(result.x, np.ones(5), atol=1e-2)
