"""What depends on the version of JAX: where primitives are, how jaxprs are laid out.

Supported are JAX 0.10 to 0.12. Before 0.11 the jaxprs within a jaxpr are closed over
their constants and ``scan`` says how many of its operands are constants and carries;
since then jaxprs are plain, and ``scan`` has trees of its operands. (What JAX knows of
arrays that differ from device to device is in ``qiaso_jax._varying``.)
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core as jex
from jax.extend.core import primitives as extended

from qiaso_jax import _varying


def _traced(function: Any, *args: Any) -> dict[str, Any]:
    """The primitives that a function is made of, by name."""
    equations = jax.make_jaxpr(function)(*args).jaxpr.eqns
    return {e.primitive.name: e.primitive for e in equations}


_UNLISTED = _traced(
    lambda data: jax.random.key_data(jax.random.wrap_key_data(data)),
    jax.ShapeDtypeStruct((2,), "uint32"),
)
"""Primitives that no public module of JAX has."""

_VARIES = ("pvary",)
"""What only says that its result varies from device to device."""

_LIBRARIES = ("/jax/", "/jaxlib/", "/flax/", "/haiku/", "/equinox/", "/optax/")
_OURS = __file__.removesuffix("program/compat.py")


def primitive(name: str) -> Any:
    """The primitive that JAX calls ``name``, or None where this version has none."""
    homes = (extended, jax.lax)
    found = (getattr(home, f"{name}_p", None) for home in homes)
    return next((p for p in found if p is not None), _UNLISTED.get(name))


def is_literal(atom: Any) -> bool:
    """Whether an operand of an equation of a jaxpr is a literal."""
    return isinstance(atom, jex.Literal)


def opened(jaxpr: Any) -> tuple[Any, list[Any]]:
    """A jaxpr, closed over constants or not, and the values of its constants."""
    if hasattr(jaxpr, "jaxpr"):
        return jaxpr.jaxpr, list(jaxpr.consts)
    return jaxpr, list(getattr(jaxpr, "consts", ()))


def called(equation: Any) -> Any:
    """The jaxpr of a plain call such as ``jit`` or ``custom_vjp_call``, or None."""
    if equation.primitive not in _CALLS:
        return None
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if name in equation.params:
            return equation.params[name]
    return None


def scan_layout(params: dict[str, Any]) -> tuple[int, int]:
    """The numbers of constants and of carries of a ``scan``."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    constants, carry, _ = params["ft_in"].unpack()
    return len(constants), len(carry)


def bind(primitive: Any, params: dict[str, Any], operands: Iterable[Any]) -> list[Any]:
    """Evaluates one equation on ``operands``."""
    # What was traced for parameters of all devices may be evaluated for those of one.
    operands = list(operands)
    axes = _varying.axes_of(operands)
    if axes:
        operands = _varying.along(list(map(jnp.asarray, operands)), axes)
    if primitive.name in _VARIES:
        return _varying.along(operands, frozenset(params["axes"]))
    params = primitive.get_bind_params(params)
    # Some versions return the functions among the parameters apart.
    functions, params = params if isinstance(params, tuple) else ((), params)
    outputs = primitive.bind(*functions, *operands, **params)
    return list(outputs) if primitive.multiple_results else [outputs]


def configuration(equation: Any) -> tuple[Any, AbstractContextManager[Any]]:
    """What an equation was traced under: to be compared, and as a context."""
    return equation.ctx, equation.ctx.manager


def source_line(equation: Any) -> str:
    """Where the user's code asked for an equation, as ``file.py:12``, or ""."""
    for name, line in _frames(equation.source_info.traceback):
        if not name.startswith(_OURS) and not any(x in name for x in _LIBRARIES):
            return f"{name.rsplit('/', 1)[-1]}:{line}"
    return ""


def _frames(traceback: Any) -> Iterator[tuple[str, int]]:
    for frame in () if traceback is None else traceback.frames:
        yield frame.file_name.replace("\\", "/"), frame.line_num


_CALLS = {
    primitive(name)
    for name in (
        "call",
        "closed_call",
        "custom_jvp_call",
        "custom_vjp_call",
        "jit",
        "remat",
    )
} - {None}
