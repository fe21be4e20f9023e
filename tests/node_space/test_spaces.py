"""Which noise at which site; what is refused; and noise at weights of every example."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from architectures import ARCHITECTURES

import qiaso_jax
from qiaso_jax.node_space.directions import draw
from qiaso_jax.node_space.examples import bind_model
from qiaso_jax.node_space.spaces import analyse, checked_space
from qiaso_jax.node_space.superposed import number_drawn, superpose
from qiaso_jax.program.rows import by_example, from_examples

B = 6
X = np.random.default_rng(0).normal(size=(B, 4)).astype(np.float32)
PARAMS = {"w": jnp.full((4, 3), 0.3), "b": jnp.full(3, 0.1)}


@pytest.fixture(autouse=True)
def promotion():
    with jax.numpy_rank_promotion("allow"):
        yield


def plain(p, x):
    return jnp.sum(jnp.tanh(x @ p["w"] + p["b"]) ** 2, axis=1)


def mixed(p, x):
    h = jnp.tanh(x @ p["w"])
    return jnp.sum(h[::-1] * h, axis=1) + jnp.sum(jnp.sin(x[:, :3] + p["b"]), axis=1)


def nonlinear(p, x):
    return jnp.sum(jnp.tanh(x @ jnp.exp(p["w"]) + p["b"]), axis=1)


def normalised(p, x):
    h = x @ p["w"]
    h = (h - h.mean(0)) / jnp.sqrt(h.var(0) + 1e-3)
    return jnp.sum(jnp.tanh(h + p["b"]) ** 2, axis=1)


def spaces(value_fn, space="auto", params=PARAMS):
    sites = qiaso_jax.node_sites(value_fn, params, space=space, x=X)
    return {s.path: s.space for s in sites}


def refusal(value_fn, space, params=PARAMS, error=ValueError):
    with pytest.raises(error) as caught:
        spaces(value_fn, space, params)
    return str(caught.value)


def test_the_space_that_is_right():
    assert spaces(plain) == {"w": "node", "b": "node"}
    assert spaces(plain, "example") == {"w": "example", "b": "example"}
    assert spaces(plain, "weights") == {"w": "weights", "b": "weights"}
    assert spaces(nonlinear) == {"w": "weights", "b": "example"} or (
        spaces(nonlinear) == {"w": "weights", "b": "node"}
    )
    assert spaces(mixed)["w"] == "weights"
    assert spaces(mixed)["b"] in ("node", "example")
    assert spaces(normalised)["w"] == "weights"
    assert spaces(normalised, "node") == {"w": "node", "b": "node"}


def test_a_mapping_is_for_the_parameters_that_it_names():
    assert spaces(mixed, {"b": "weights"}) == {"w": "weights", "b": "weights"}
    assert spaces(mixed, {"b": "example"})["b"] == "example"
    assert spaces(mixed, {"b": "node"})["b"] == "node"
    assert spaces(plain, {"w": "weights"})["b"] in ("node", "example")
    assert spaces(plain, {})["w"] == "node"


@pytest.mark.parametrize("space", ["node", "example", {"w": "node"}])
def test_what_mixes_examples_is_named_with_its_line(space):
    said = refusal(mixed, space)
    line = mixed.__code__.co_firstlineno + 2
    assert f"rev (test_spaces.py:{line})" in said
    assert "'w'" in said
    assert "'weights' or 'auto'" in said


@pytest.mark.parametrize("space", ["node", {"w": "example"}])
def test_what_is_not_linear_is_named_with_its_line(space):
    said = refusal(nonlinear, space)
    line = nonlinear.__code__.co_firstlineno + 1
    assert f"exp (test_spaces.py:{line}), which is not linear in it" in said
    assert "'w'" in said


def test_spaces_that_do_not_go_together_are_refused():
    said = refusal(plain, {"w": "node", "b": "example"})
    assert "both node and example space" in said


def test_paths_and_spaces_that_there_are_none_of():
    assert "['v'], which are no parameters; those are ['b', 'w']" in refusal(
        plain, {"v": "node"}
    )
    for space in ("nodes", {"w": "nodes"}):
        assert "space must be one of" in refusal(plain, space)
        with pytest.raises(ValueError, match="got 'nodes'"):
            checked_space(space)


def complex_one(p, x):
    return jnp.sum(jnp.abs(x @ p["w"] + p["b"]) ** 2, axis=1)


@pytest.mark.parametrize("space", ["auto", "node", "weights"])
def test_complex_parameters_are_refused(space):
    params = {**PARAMS, "w": PARAMS["w"] + 1j}
    said = refusal(complex_one, space, params)
    assert "'w' is complex (complex64)" in said
    assert "real and imaginary parts as two parameters" in said


@pytest.mark.parametrize(
    ("value_fn", "params"),
    [
        (lambda p, x: x.sum(1), PARAMS),
        (lambda p, x: plain(jax.lax.stop_gradient(p), x), PARAMS),
        (lambda p, x: x.sum(1) * p["n"], {"n": jnp.int32(2)}),
    ],
)
def test_nothing_to_move_is_refused(value_fn, params):
    said = refusal(value_fn, "auto", params)
    assert "there is nothing to move" in said
    assert all(path in said for path in params)


def test_parameters_in_weight_space_alone_are_taken():
    def value_fn(p, x):
        return jnp.exp(p["w"][0, 0]) * x.sum(1)

    assert spaces(value_fn) == {"w": "weights", "b": "fixed"}


def drawn(value_fn, examples, space="auto"):
    model = bind_model(value_fn, PARAMS, {"x": jnp.tile(X, (4, 1))}, None)
    return number_drawn(model, analyse(model, space), examples)


def test_a_quarter_of_the_examples_or_all_where_they_meet():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert drawn(plain, None) == B
        assert drawn(plain, 0.5) == 2 * B
        assert drawn(plain, 1e-3) == 2
        assert drawn(normalised, None) == 4 * B
        assert drawn(normalised, 1.0) == 4 * B
        assert drawn(normalised, 0.5, "node") == 2 * B
    with pytest.warns(UserWarning, match=r"examples=0\.5.*depends on others"):
        assert drawn(normalised, 0.5) == 2 * B


@pytest.mark.slow
def test_the_default_is_said_once_per_trace():
    params, data = PARAMS, {"x": jnp.asarray(X)}
    tx = qiaso_jax.node_qiaso(4, optimizer=optax.sgd(1.0), examples=0.5)
    step = functools.partial(tx.update, value_fn=normalised)
    with pytest.warns(UserWarning, match="examples=None evaluates all") as said:
        jax.eval_shape(step, None, tx.init(params), params, **data)
    assert len(said) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["dense", "convolution", "attention", "embedding", "gru_8"]
)
def test_weights_of_every_example_move_as_if_they_were_its_own(name):
    """The noise of example n at the nodes is that of its own weights, by linearity.

    Its product with any cotangent at the nodes of example n alone has to be that of
    the weights with the pulled back cotangent, which is what ``gradients`` is of.
    """
    a = ARCHITECTURES[name]
    with jax.enable_x64(True):
        cast = lambda x: (  # noqa: E731
            jnp.asarray(x, jnp.float64) if jnp.asarray(x).dtype == jnp.float32 else x
        )
        params, batch = jax.tree.map(cast, a.params), jax.tree.map(cast, dict(a.batch))
        model = bind_model(a.value_fn, params, batch, None)
        example, node = analyse(model, "example"), analyse(model, "node")
        assert "example" in example.spaces
        size, sigma, key = model.size, jnp.asarray(0.1), jax.random.key(0)

        @jax.jit
        def compared():
            ours = superpose(model, example, size, key, sigma, "rademacher", False)
            theirs = superpose(model, node, size, key, sigma, "rademacher", False)
            pairs = []
            for i, noise in enumerate(ours.noises):
                if example.spaces[i] != "example":
                    continue
                site = example.sites.sites[i]
                sources = draw(jax.random.key(5 + i), noise.directions, 1, ours.rows)
                pair = jnp.int32(0)
                feed = by_example(noise.feed(sources, pair), site.axis, size)
                # How far weights move in σ is what the sums are multiplied by.
                (ratio, *_) = noise.gradients([jnp.ones(())] * len(noise.directions))
                cotangent = jax.random.normal(jax.random.key(7), site.shape)
                alone = by_example(cotangent, site.axis, size)
                for n in range(size):
                    mask = (jnp.arange(size) == n).reshape(-1, *[1] * (feed.ndim - 1))
                    at_n = from_examples(jnp.where(mask, alone, 0), site.axis)
                    silent = [jnp.zeros(s.shape) for s in node.sites.sites]
                    silent[i] = -at_n
                    back = theirs.gradients(silent)
                    moved = sum(
                        jnp.vdot(
                            z.scaled(source, pair, jnp.ones(()))[n].astype(float),
                            back[leaf],
                        )
                        for z, source, leaf in zip(
                            noise.directions, sources, sorted(site.leaves), strict=True
                        )
                    )
                    far = jnp.vdot(feed[n], by_example(at_n, site.axis, size)[n])
                    pairs.append((far * -ratio, moved * sigma))
            return jnp.array(pairs)

        ours, expected = compared().T
    np.testing.assert_allclose(ours, expected, 1e-6, 1e-9)
    assert np.all(np.abs(expected) > 1e-6)
    assert len(ours) >= size
