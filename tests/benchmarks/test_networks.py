import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from benchmarks.cli import UserError
from benchmarks.harness import convolution, networks
from benchmarks.harness.convolution import Convolution

pytestmark = pytest.mark.slow


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def initial(name, shape=(4, 28, 28, 1), **kwargs):
    network = networks.build(name, **kwargs)
    images = jax.random.normal(jax.random.key(1), shape)
    return network, images, *network.init(jax.random.key(0), images)


def test_mlp_has_the_stated_size():
    _, _, params, stats = initial("mlp")
    assert count(params) == 784 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10 == 109_386
    assert not jax.tree.leaves(stats)


@pytest.mark.parametrize(
    ("name", "channels"), [("cnn", (16, 32, 64)), ("cnn-global", (4, 8, 16, 32))]
)
def test_cnn_has_five_layers(name, channels):
    _, _, params, stats = initial(name, channels=channels)
    kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim > 1]
    assert len(kernels) == 5
    assert jax.tree.leaves(stats)


def test_cnn_is_as_wide_as_asked():
    _, _, params, _ = initial("cnn", channels=(2, 5))
    shapes = {leaf.shape for leaf in jax.tree.leaves(params) if leaf.ndim > 1}
    assert shapes == {(3, 3, 1, 2), (3, 3, 2, 5), (7 * 7 * 5, 64), (64, 10)}


def xlas_convolution(x, kernel):
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=dimensions
    )


@pytest.mark.parametrize(
    ("name", "halved", "share"),
    [
        ("cnn-global", [True, True, True, True, False], 1),
        ("cnn-deep", [False, True, False, True, False], 1 / 9),
    ],
)
def test_global_cnn_by_xlas_layers(name, halved, share):
    network, images, params, stats = initial(
        name, (4, 32, 32, 3), channels=(2, 3, 4, 5, 6)
    )
    actual, _ = network.apply(params, stats, images, False)

    def pooled(x, size):
        window = (1, size, size, 1)
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")

    # Batch normalisation starts with the statistics 0 and 1, and epsilon 1e-5.
    scale = 1 / np.sqrt(1 + 1e-5)
    x = images
    for layer, halves in enumerate(halved):
        x = xlas_convolution(x, params[f"Convolution_{layer}"]["kernel"])
        x = jnp.maximum(scale * (pooled(x, 2) if halves else x), 0)
    x = pooled(x, x.shape[1])[:, 0, 0]
    expected = x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"][None]
    np.testing.assert_allclose(actual, share * expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "most"),
    [("cnn", 3), ("cnn-global", 4), ("cnn-deep", 8)],
)
def test_too_many_convolutions(name, most):
    initial(name, (2, 8, 9, 1), channels=(2,) * most)
    with pytest.raises(UserError, match=r"--channels .* left with 1x1 pixels"):
        initial(name, (2, 8, 9, 1), channels=(2,) * (most + 1))


@pytest.mark.parametrize("name", networks.NAMES)
@pytest.mark.parametrize("shape", [(3, 32, 32, 3), (3, 8, 8, 1)])
def test_logits_are_finite_for_every_dataset(name, shape):
    network, images, params, stats = initial(name, shape)
    for train in (False, True):
        logits, _ = network.apply(params, stats, images, train)
        assert logits.shape == (3, 10)
        assert np.isfinite(logits).all()


def test_convolution_is_xlas():
    module = Convolution(5, networks.initialiser("he"), jax.vmap)
    x = jax.random.normal(jax.random.key(1), (2, 6, 7, 3))
    variables = module.init(jax.random.key(0), x)
    expected = xlas_convolution(x, variables["params"]["kernel"])
    np.testing.assert_allclose(module.apply(variables, x), expected, atol=1e-5)


@pytest.mark.parametrize("patches", [1, 4 * 9 * 6 * 7 * 3, 10**6])
def test_convolution_in_parts_has_xlas_value_and_gradients(patches, monkeypatch):
    monkeypatch.setattr(convolution, "PATCHES", patches)
    module = Convolution(5, networks.initialiser("he"), convolution.in_parts)
    x = jax.random.normal(jax.random.key(1), (11, 6, 7, 3))
    kernel = module.init(jax.random.key(0), x)["params"]["kernel"]
    weights = jax.random.normal(jax.random.key(2), (11, 6, 7, 5))

    def ours(kernel, x):
        return jnp.sum(weights * module.apply({"params": {"kernel": kernel}}, x))

    def xlas(kernel, x):
        return jnp.sum(weights * xlas_convolution(x, kernel))

    for actual, expected in zip(
        jax.value_and_grad(ours, (0, 1))(kernel, x),
        jax.value_and_grad(xlas, (0, 1))(kernel, x),
        strict=True,
    ):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
            actual,
            expected,
        )


def test_patches_are_not_kept_for_the_backward_pass(monkeypatch):
    monkeypatch.setattr(convolution, "PATCHES", 8 * 9 * 8 * 8 * 16)
    module = Convolution(16, networks.initialiser("he"), convolution.in_parts)
    x = jnp.zeros((64, 8, 8, 16))
    variables = module.init(jax.random.key(0), x)
    gradient = jax.grad(lambda v, x: jnp.sum(module.apply(v, x) ** 2), (0, 1))
    memory = jax.jit(gradient).lower(variables, x).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 9 * x.nbytes


def test_max_pool_is_xlas():
    x = jax.random.normal(jax.random.key(1), (2, 7, 6, 3))
    window, padding = (1, 2, 2, 1), "VALID"
    expected = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, padding)
    np.testing.assert_array_equal(convolution.max_pool(x), expected)


@pytest.mark.parametrize(
    ("name", "variance"), [("xavier", 2 / (784 + 1000)), ("he", 2 / 784)]
)
def test_initialisation_has_its_variance(name, variance):
    _, _, params, _ = initial(
        "mlp", kernel_init=networks.initialiser(name), hidden=(1000,)
    )
    kernel = params["Dense_0"]["kernel"]
    # 784,000 draws: the relative standard error of a variance is 0.0016.
    assert float(jnp.var(kernel)) == pytest.approx(variance, rel=0.01)


def test_training_mode_updates_statistics_and_evaluation_does_not():
    network, images, params, stats = initial("cnn")
    _, trained = network.apply(params, stats, images, True)
    _, kept = network.apply(params, stats, images, False)
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), stats, trained)
    assert any(jax.tree.leaves(changed))
    jax.tree.map(np.testing.assert_array_equal, stats, kept)


def test_losses_and_hits():
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]))
    labels = jnp.array([1, 1])
    expected = -np.log([0.25, 0.8])
    np.testing.assert_allclose(
        networks.cross_entropy(logits, labels), expected, rtol=1e-6
    )
    np.testing.assert_array_equal(networks.correct(logits, labels), [False, True])


def test_smoothed_cross_entropy():
    logits = jax.random.normal(jax.random.key(0), (7, 10))
    labels = np.arange(7)
    log_p = scipy.special.log_softmax(np.asarray(logits, np.float64), axis=1)
    expected = -0.9 * log_p[np.arange(7), labels] - 0.1 * log_p.mean(axis=1)
    actual = networks.cross_entropy(logits, jnp.asarray(labels), 0.1)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_gaussian_initialisation_has_its_mean_and_spread():
    kernel_init = networks.initialiser("gaussian", mean=-0.02, spread=0.1)
    _, _, params, _ = initial("mlp", kernel_init=kernel_init, hidden=(1000,))
    kernel = params["Dense_0"]["kernel"]
    # 784,000 draws: six standard errors are 7e-4 and 5e-4.
    assert abs(kernel.mean() + 0.02) < 7e-4
    assert abs(kernel.std() - 0.1) < 5e-4
