from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qiaso_jax import _arguments


def test_positive_int_takes_what_indexes():
    assert _arguments.positive_int("n", np.int64(3)) == 3
    with pytest.raises(TypeError, match=r"n must be a Python .*inject_hyperparams"):
        _arguments.positive_int("n", jnp.array(3))


def test_scalar_passes_over_what_is_not_yet_known():
    jax.jit(lambda x: _arguments.scalar("x", x, above=0))(-1.0)
    with pytest.raises(ValueError, match="x must be finite and above 0, got -1"):
        _arguments.scalar("x", jnp.array(-1.0), above=0)
    with pytest.raises(TypeError, match="x must be a real number, got True"):
        _arguments.scalar("x", True)


@pytest.mark.parametrize("value", [1, 0.5, np.float32(2), jnp.array(1, jnp.bfloat16)])
def test_scalar_takes_every_kind_of_number(value):
    _arguments.scalar("x", value, above=0)


def test_schedules_are_called_at_the_step():
    assert _arguments.at_step(lambda step: 2 * step, jnp.array(3)) == 6
    assert _arguments.at_step(0.5, jnp.array(3)) == 0.5
    _arguments.scalar_or_schedule("x", lambda step: -1.0, above=0)


@pytest.mark.parametrize(
    "key",
    [np.zeros(3), jnp.zeros((2, 2), jnp.uint32), 1.0, None, "seed", True, object()],
)
def test_what_is_no_key_is_named(key):
    with pytest.raises(TypeError, match="key must be an int"):
        _arguments.prng_key(key)


@pytest.mark.parametrize("key", [2**32, -(2**31) - 1, 2**70])
def test_a_seed_has_32_bits(key):
    with pytest.raises(ValueError, match=f"key must be an int of 32 bits.*got {key}"):
        _arguments.prng_key(key)


@pytest.mark.parametrize("key", [2**31, 2**32 - 1, -1, np.int64(7)])
def test_every_seed_of_32_bits_is_one(key):
    data, _ = _arguments.prng_key(key)
    bits = jnp.asarray(int(key) % 2**32, jnp.uint32)
    expected = jax.random.key_data(jax.random.key(bits))
    np.testing.assert_array_equal(data, expected)


def test_several_keys_are_too_many():
    with pytest.raises(ValueError, match=r"single key, got shape \(2,\)"):
        _arguments.prng_key(jax.random.split(jax.random.key(0)))


def test_only_named_arguments_are_forwarded():
    given = {"a": 1, "b": 2, "params": 3}
    accepted = partial(_arguments.accepted_arguments, "value_fn")
    assert accepted(lambda params, a: 0, given) == {"a": 1}
    assert accepted(lambda p, *, b, a=0: 0, given) == {"a": 1, "b": 2}
    assert accepted(lambda p, **kwargs: 0, given) == given
    assert accepted(lambda p, a=0, /: 0, given) == {}
    assert accepted(lambda *args: 0, {}) == {}
    assert accepted(jax.jit(lambda p, b: 0), given) == {"b": 2}
    assert accepted(partial(lambda p, a, b: 0, b=1), given) == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("fun", "sentence"),
    [
        (lambda p, a, c: 0, "value_fn needs 'c', which update was not given; it was"),
        (lambda p, a, /: 0, "value_fn needs 'a', which"),
        (lambda p, *, state: 0, r"value_fn needs 'state'.*value_kwargs=\{...\}"),
        (lambda *args: 0, r"must name its arguments.*signature \(\*args\)"),
        (lambda p, *args: 0, r"must name its arguments"),
        (lambda: 0, r"must take the parameters as its first argument.*\(\)"),
        (lambda *, a: 0, r"must take the parameters as its first argument"),
    ],
)
def test_what_a_function_does_not_take_is_named(fun, sentence):
    with pytest.raises(TypeError, match=sentence):
        _arguments.accepted_arguments("value_fn", fun, {"a": 1, "b": 2})


def test_a_near_miss_is_warned_of():
    def loss(params, x, label_smoothing=0.0, temperature=1.0):
        return 0

    def accepted(**arguments):
        return _arguments.accepted_arguments("value_fn", loss, arguments)

    with pytest.warns(UserWarning, match="'label_smooth',.*'label_smoothing' was"):
        assert accepted(x=1, label_smooth=0.1) == {"x": 1}
    # What is given cannot be what was meant; what is unlike anything is for others.
    accepted(x=1, label_smoothing=0.1, label_smooth=0.1, value=2.0)
