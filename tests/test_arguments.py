import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qiaso_jax import _arguments


def test_positive_int_takes_what_indexes():
    assert _arguments.positive_int("n", np.int64(3)) == 3
    with pytest.raises(TypeError, match=r"n must be a Python int.*inject_hyperparams"):
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


@pytest.mark.parametrize("key", [np.zeros(3), jnp.zeros((2, 2), jnp.uint32), 1.0])
def test_what_is_no_key_is_named(key):
    with pytest.raises(TypeError, match="key must be an int"):
        _arguments.prng_key(key)


def test_several_keys_are_too_many():
    with pytest.raises(ValueError, match=r"single key, got shape \(2,\)"):
        _arguments.prng_key(jax.random.split(jax.random.key(0)))


def test_only_named_arguments_are_forwarded():
    given = {"a": 1, "b": 2, "params": 3}
    accepted = _arguments.accepted_arguments
    assert accepted(lambda params, a: 0, given) == {"a": 1}
    assert accepted(lambda p, *, b, a=0: 0, given) == {"a": 1, "b": 2}
    assert accepted(lambda p, **kwargs: 0, given) == given
    assert accepted(lambda p, a, /: 0, given) == {}
    assert accepted(jax.jit(lambda p, b: 0), given) == {"b": 2}
