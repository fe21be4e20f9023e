"""Checks of arguments, made once, outside of tracing, in sentences of our own."""

import difflib
import inspect
import math
import operator
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

PyTree: TypeAlias = Any
"""A pytree of arrays; what its leaves must be is said where it is used."""

ScalarOrSchedule: TypeAlias = float | jax.Array | Callable[[jax.Array], Any]

BatchArgnames: TypeAlias = Sequence[str] | Mapping[str, int] | None
"""Names of arguments that carry the examples, and maybe along which axes."""


def positive_int(name: str, value: Any) -> int:
    """Returns ``value`` as an ``int`` of at least 1."""
    return int_from(1, name, value)


def int_from(least: int, name: str, value: Any) -> int:
    """Returns ``value`` as an ``int`` of at least ``least``."""
    if isinstance(value, jax.Array):
        static(**{name: value})
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(
            f"{name} must be an int of at least {least}, got {value!r} "
            f"of type {type(value).__name__}."
        )
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}.")
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


def static(**arguments: Any) -> None:
    """Refuses arrays for what fixes the shape of the computation, all at once."""
    arrays = [n for n, value in arguments.items() if isinstance(value, jax.Array)]
    if arrays:
        raise TypeError(
            f"{', '.join(arrays)} must be a Python number, because it fixes the shape "
            "of the computation; got a JAX array. Under optax.inject_hyperparams, give "
            f"static_args={tuple(arrays)}."
        )


def prng_key(key: Any) -> tuple[jax.Array, Any]:
    """Raw key data, and the generator they belong to, of a seed or a PRNG key."""
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if key.ndim:
            raise ValueError(f"key must be a single key, got shape {key.shape}.")
        return jax.random.key_data(key), jax.random.key_impl(key)
    accepted = (
        "key must be an int of 32 bits, a key of jax.random.key, or the uint32 data of "
        "one; got"
    )
    is_int = isinstance(key, int | np.integer) and not isinstance(key, bool)
    if is_int and not -(2**31) <= key < 2**32:
        raise ValueError(f"{accepted} {key}.")
    if not is_int and not isinstance(key, jax.Array | np.ndarray):
        raise TypeError(f"{accepted} {key!r}.")
    if isinstance(key, np.ndarray) and key.dtype.kind not in "iu":
        raise TypeError(f"{accepted} dtype {key.dtype} and shape {key.shape}.")
    array = jnp.asarray(key, jnp.uint32 if is_int and key >= 2**31 else None)
    if array.ndim == 1 and array.dtype == jnp.uint32:
        return array, None
    if array.ndim or not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"{accepted} dtype {array.dtype} and shape {array.shape}.")
    return jax.random.key_data(jax.random.key(array)), None


def function(name: str, value: Any, signature: str) -> None:
    """Checks that ``value`` can be called, and is not, say, what it returns."""
    if not callable(value):
        raise TypeError(f"{name} must be a function {signature}; got {value!r}.")


def floats_of_shape(name: str, like: str, value: Any, shape: Any) -> jax.Array:
    """What the function ``name`` returned, if that is as it should be."""
    is_array = hasattr(value, "dtype") and hasattr(value, "shape")
    if is_array and value.shape == shape and jnp.issubdtype(value.dtype, jnp.floating):
        return jnp.asarray(value)
    got = f"{value.dtype} of shape {value.shape}" if is_array else repr(value)
    raise ValueError(
        f"{name} must return real floating numbers of the shape {shape} of {like}; got "
        f"{got}."
    )


RESERVED = ("updates", "state", "params")
"""Arguments of ``update`` itself, whose names no argument of ``value_fn`` can have."""


def named_arguments(
    fun: Callable[..., Any], arguments: dict[str, Any]
) -> dict[str, Any]:
    """Those of the keyword ``arguments`` that the signature of ``fun`` names.

    Its first parameter is taken by the parameters of the model. A function that takes
    ``**kwargs`` gets all of them.
    """
    parameters = _parameters(fun) or []
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return arguments
    names = {p.name for p in parameters[1:] if p.kind in _BY_NAME}
    return {name: value for name, value in arguments.items() if name in names}


def accepted_arguments(
    name: str, fun: Callable[..., Any], arguments: dict[str, Any]
) -> dict[str, Any]:
    """The same, and said what is wrong with the rest.

    One that is left over, and is nearly called as a parameter that was left at its
    default, is warned of.

    Args:
      name: what ``fun`` is called.
      fun: the function.
      arguments: by their names.

    Raises:
      TypeError: if ``fun`` takes no parameters of the model, or needs an argument that
        is not among them, or takes ``*args`` in the place of names.
    """
    accepted = named_arguments(fun, arguments)
    parameters = _parameters(fun)
    if parameters is None:
        return accepted
    others = [key for key in arguments if key not in accepted]
    if not parameters or parameters[0].kind is inspect.Parameter.KEYWORD_ONLY:
        raise TypeError(
            f"{name} must take the parameters as its first argument; got a function of "
            f"the signature {inspect.signature(fun)}."
        )
    if others and any(p.kind is p.VAR_POSITIONAL for p in parameters):
        raise TypeError(
            f"{name} must name its arguments, or take **kwargs, as update forwards "
            f"{', '.join(arguments)} by name; got a function of the signature "
            f"{inspect.signature(fun)}."
        )
    left = [p for p in parameters[1:] if p.name not in accepted]
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    missing = [p.name for p in left if p.default is p.empty and p.kind not in variadic]
    if missing:
        raise TypeError(_missing(name, missing, others))
    for key in others:
        names = [p.name for p in left if p.kind in _BY_NAME]
        for meant in difflib.get_close_matches(key, names, n=1, cutoff=0.75):
            warnings.warn(
                f"{name} does not take {key!r}, which update was given, and {meant!r} "
                "was left at its default; if that is what is meant, give it by its "
                "name.",
                stacklevel=2,
            )
    return accepted


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _parameters(fun: Callable[..., Any]) -> list[inspect.Parameter] | None:
    try:
        return list(inspect.signature(fun).parameters.values())
    except ValueError:  # some built-in callables have no signature
        return None


def _missing(name: str, missing: list[str], others: list[str]) -> str:
    names = ", ".join(map(repr, missing))
    given = ", ".join(map(repr, others)) or "no other one"
    message = f"{name} needs {names}, which update was not given; it was given {given}."
    if set(missing) & set(RESERVED):
        message += (
            f" The names {', '.join(RESERVED)} are those of update's own arguments: "
            "give such an argument in value_kwargs={...}, or bind it to the function."
        )
    return message


def checked_argnames(batch_argnames: Any) -> BatchArgnames:
    """``batch_argnames`` if they are names, or names with their axes."""
    if isinstance(batch_argnames, str):
        raise TypeError(
            "batch_argnames must be a sequence of names, such as "
            f"({batch_argnames!r},); got the string {batch_argnames!r}."
        )
    if isinstance(batch_argnames, Mapping):
        for name, axis in batch_argnames.items():
            if not isinstance(axis, int) or isinstance(axis, bool) or axis < 0:
                raise ValueError(
                    "batch_argnames must map names to the axis that counts the "
                    f"examples, an int of at least 0; got {axis!r} for {name!r}."
                )
    return batch_argnames
