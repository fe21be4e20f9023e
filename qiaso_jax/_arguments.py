"""Checks of arguments, made once, outside of tracing, in sentences of our own."""

import inspect
import math
import operator
from collections.abc import Callable, Collection
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

PyTree: TypeAlias = Any
"""A pytree of arrays; what its leaves must be is said where it is used."""

ScalarOrSchedule: TypeAlias = float | jax.Array | Callable[[jax.Array], Any]


def positive_int(name: str, value: Any) -> int:
    """Returns ``value`` as an ``int`` of at least 1."""
    if isinstance(value, jax.Array):
        raise TypeError(
            f"{name} must be a Python int, because it fixes the shape of the "
            f"computation; got a JAX array of dtype {value.dtype}. Under "
            f"optax.inject_hyperparams, name it in static_args."
        )
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(
            f"{name} must be an int of at least 1, got {value!r} "
            f"of type {type(value).__name__}."
        )
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {number}.")
    return number


def scalar(
    name: str,
    value: Any,
    *,
    above: float = -math.inf,
    at_least: float = -math.inf,
    at_most: float = math.inf,
) -> None:
    """Checks that ``value`` is a real number in range; passes over tracers."""
    if isinstance(value, Tracer):
        return
    array = np.asarray(value)
    if array.dtype.kind not in "iuf" and not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(
            f"{name} must be a real number, got {value!r} "
            f"of type {type(value).__name__}."
        )
    if array.ndim:
        raise ValueError(f"{name} must be a scalar, got shape {array.shape}.")
    number = float(array)
    if not (above < number and at_least <= number <= at_most) or math.isinf(number):
        bounds = [
            *([f"above {above:g}"] if above > -math.inf else []),
            *([f"at least {at_least:g}"] if at_least > -math.inf else []),
            *([f"at most {at_most:g}"] if at_most < math.inf else []),
        ]
        accepted = " and ".join(["finite", *bounds])
        raise ValueError(f"{name} must be {accepted}, got {number:g}.")


def scalar_or_schedule(name: str, value: Any, **bounds: float) -> None:
    """Checks a hyper-parameter that may also be an optax schedule."""
    if not callable(value):
        scalar(name, value, **bounds)


def one_of(name: str, value: Any, accepted: Collection[Any]) -> None:
    """Checks that ``value`` is among the ``accepted`` ones."""
    if value not in accepted:
        names = ", ".join(repr(option) for option in accepted)
        raise ValueError(f"{name} must be one of {names}; got {value!r}.")


def transformation(name: str, value: Any) -> None:
    """Checks that ``value`` is an optax optimizer, and not, say, its factory."""
    if not isinstance(value, optax.GradientTransformation):
        raise TypeError(
            f"{name} must be an optax gradient transformation, such as "
            f"optax.adam(1e-3); got {value!r}."
        )


def at_step(value: ScalarOrSchedule, step: jax.Array) -> Any:
    """The value of a hyper-parameter, or of its schedule, at ``step``."""
    return value(step) if callable(value) else value


def prng_key(key: Any) -> tuple[jax.Array, Any]:
    """Raw key data, and the generator they belong to, of a seed or a PRNG key."""
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if key.ndim:
            raise ValueError(f"key must be a single key, got shape {key.shape}.")
        return jax.random.key_data(key), jax.random.key_impl(key)
    array = jnp.asarray(key)
    if array.ndim == 1 and array.dtype == jnp.uint32:
        return array, None
    if array.ndim or not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(
            "key must be an int, a key of jax.random.key, or the uint32 data of one; "
            f"got dtype {array.dtype} and shape {array.shape}."
        )
    return jax.random.key_data(jax.random.key(array)), None


def accepted_arguments(
    fun: Callable[..., Any], arguments: dict[str, Any]
) -> dict[str, Any]:
    """Those of the keyword ``arguments`` that the signature of ``fun`` names.

    Its first parameter is taken by the parameters of the model. A function that takes
    ``**kwargs`` gets all of them.
    """
    try:
        parameters = list(inspect.signature(fun).parameters.values())
    except ValueError:  # some built-in callables have no signature
        return {}
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return arguments
    names = {p.name for p in parameters[1:] if p.kind is not p.POSITIONAL_ONLY}
    return {name: value for name, value in arguments.items() if name in names}
