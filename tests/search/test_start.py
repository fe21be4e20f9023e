import collections
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qiaso_jax.search.start import coordinatewise, start

Point = collections.namedtuple("Point", "x y")


@pytest.mark.parametrize(
    "x0", [[3, 2.5], (3, 2.5), {"a": 3, "b": 2.5}, Point(3, 2.5), [np.float64(3), 2.5]]
)
def test_numbers_become_floats(x0):
    found = start(x0)
    assert jax.tree.structure(found) == jax.tree.structure(x0)
    for leaf, value in zip(jax.tree.leaves(found), (3, 2.5), strict=True):
        assert leaf.dtype == jnp.float32
        assert not leaf.weak_type
        assert leaf == value


def test_numbers_are_in_double_precision_where_jax_is():
    with jax.enable_x64(True):
        assert [x.dtype for x in start([3, 0.1])] == [jnp.float64] * 2
        assert start(np.float32(0.1)).dtype == jnp.float32


def test_what_is_known_by_value_alone_is_of_a_definite_dtype():
    found = start([2**40, jnp.asarray(0.5), True])
    assert not any(leaf.weak_type for leaf in found)
    assert found[0] == 2.0**40


def test_other_leaves_keep_their_dtype():
    x0 = {
        "half": jnp.ones(2, jnp.bfloat16),
        "double": np.ones(2),
        "complex": 1j,
        "flag": True,
        "mask": np.array([True, False]),
    }
    dtypes = {name: str(leaf.dtype) for name, leaf in start(x0).items()}
    assert dtypes == {
        "half": "bfloat16",
        "double": "float32",  # as JAX has it
        "complex": "complex64",
        "flag": "bool",
        "mask": "bool",
    }


@pytest.mark.parametrize(
    "integers", [np.array([1, 2]), jnp.array([1, 2]), np.int64(3), np.uint8(3)]
)
def test_arrays_of_integers_stay_and_are_named(integers):
    x0 = {"layers": [1.5, {"n": integers}], "m": jnp.arange(2)}
    with pytest.warns(
        UserWarning, match=r"x0\['layers'\]\[1\]\['n'\], x0\['m'\]; give"
    ):
        found = start(x0)
    kept = found["layers"][1]["n"]
    assert jnp.issubdtype(kept.dtype, jnp.integer)
    np.testing.assert_array_equal(kept, integers)


@pytest.mark.parametrize(
    ("x0", "sentence"),
    [
        (np.arange(3), r"at least one floating or complex.*\['int32'\]"),
        ([], r"at least one floating or complex number to move, got.*\[\]"),
        ([True, np.zeros(0)], "at least one floating or complex"),
        ({"a": 1.0, "b": ["text"]}, r"x0\['b'\]\[0\] must be a number.*got 'text'"),
        (["f4", 1.0], r"x0\[0\] must be a number or an array, got 'f4'"),
        ([float, 1.0], r"x0\[0\] must be a number or an array, got <class 'float'>"),
        ([1.0, print], r"x0\[1\] must be a number or an array, got <built-in"),
        (np.array(["a"]), "x0 must be a number or an array"),
    ],
)
def test_what_cannot_start_is_named(x0, sentence):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(TypeError, match=sentence):
            start(x0)


def test_coordinatewise_is_concrete_under_jit():
    def concrete(x):
        parts = coordinatewise("sigma", {"a": 0.5, "b": np.arange(3)}, x)
        assert isinstance(parts["a"][0], np.ndarray)
        np.testing.assert_array_equal(parts["b"], np.arange(3)[None].repeat(2, 0))
        assert parts["a"][0].dtype == jnp.bfloat16
        return x

    jax.jit(concrete)({"a": [jnp.zeros(2, jnp.bfloat16)], "b": jnp.zeros((2, 3))})
