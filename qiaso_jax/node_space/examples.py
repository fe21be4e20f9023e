"""What carries the examples of a batch, and which of them candidates are for."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from qiaso_jax._arguments import BatchArgnames, PyTree
from qiaso_jax.program.axes import ExampleAxis
from qiaso_jax.program.equations import Program, variables_of
from qiaso_jax.program.flatten import flatten
from qiaso_jax.resampling import systematic_draws

UNIFORM_SHARE = 0.1
"""m: the share of the draws of examples that does not look at their losses."""


class Model(NamedTuple):
    """``value_fn`` with its keyword arguments, as a function of lists of arrays.

    Attributes:
      losses: ``(leaves, batch) -> [b]``, for any number b of examples.
      leaves: of the parameters.
      paths: of the leaves.
      batch: what carries the examples.
      axes: the axis of each array of ``batch`` that counts them.
      size: B, their number.
      names: of the keyword arguments that the arrays of ``batch`` are of.
      places: the axis that counts the examples, of each leaf of the keyword arguments;
        ``None`` of what does not carry them.
    """

    losses: Callable[[Sequence[Any], Sequence[Any]], jax.Array]
    leaves: list[Any]
    paths: list[str]
    batch: list[Any]
    axes: list[int]
    size: int
    names: list[str]
    places: list[int | None]

    @property
    def statuses(self) -> tuple[ExampleAxis, ...]:
        """Where the arrays of ``batch`` count the examples."""
        return tuple(ExampleAxis(axis, 1) for axis in self.axes)

    def resized(self, size: int) -> list[jax.ShapeDtypeStruct]:
        """The shapes of ``batch`` for another number of examples."""
        return [
            jax.ShapeDtypeStruct((*x.shape[:axis], size, *x.shape[axis + 1 :]), x.dtype)
            for x, axis in zip(self.batch, self.axes, strict=True)
        ]


def path_name(path: Any) -> str:
    """The keys of a parameter, joined by slashes."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


class _Argument(NamedTuple):
    name: str
    value: Any
    is_array: bool


def bind_model(
    value_fn: Callable[..., Any],
    params: PyTree,
    kwargs: dict[str, Any],
    batch_argnames: BatchArgnames,
) -> Model:
    """Splits the arguments of ``value_fn`` into parameters, batch and the rest.

    Args:
      value_fn: ``(params, **kwargs) -> [B]``.
      params: a pytree of arrays.
      kwargs: what it takes.
      batch_argnames: names of those that carry the batch, along their first axes or
        the ones named; ``None`` for all whose arrays have B as the length of their
        first axes, as far as the function can be traced so.

    Returns:
      The model.

    Raises:
      TypeError: if the losses are not one real floating array.
      ValueError: if the losses are not of shape ``[B]``, or if no argument carries
        the batch.
    """
    # As under jit: NumPy takes no indices that are traced, and has other dtypes.
    kwargs = jax.tree.map(
        lambda x: jnp.asarray(x) if isinstance(x, np.ndarray) else x,
        kwargs,
    )
    size = _number_of_examples(value_fn, params, kwargs)
    flat, argsdef = jax.tree.flatten(kwargs)
    arguments = [
        _Argument(
            str(path[0].key),  # pyright: ignore[reportAttributeAccessIssue]
            x,
            hasattr(x, "shape") and hasattr(x, "dtype"),
        )
        for path, x in jax.tree_util.tree_flatten_with_path(kwargs)[0]
    ]
    leaves_with_paths, treedef = jax.tree_util.tree_flatten_with_path(params)

    def bound(axes: Sequence[int | None]) -> Model:
        def losses(leaves, batch):
            rows = iter(batch)
            values = [
                x if axis is None else next(rows)
                for axis, x in zip(axes, flat, strict=True)
            ]
            return value_fn(
                jax.tree.unflatten(treedef, leaves),
                **jax.tree.unflatten(argsdef, values),
            )

        return Model(
            losses=losses,
            leaves=[leaf for _, leaf in leaves_with_paths],
            paths=[path_name(path) for path, _ in leaves_with_paths],
            batch=[x for a, x in zip(axes, flat, strict=True) if a is not None],
            axes=[a for a in axes if a is not None],
            size=size,
            names=[
                argument.name
                for a, argument in zip(axes, arguments, strict=True)
                if a is not None
            ],
            places=list(axes),
        )

    if batch_argnames is not None:
        return bound(_named(arguments, batch_argnames, size))
    names = _of_length(arguments, size)
    if not names:
        raise ValueError(
            f"no keyword argument carries the {size} examples of the batch along the "
            f"first axes of all its arrays: value_fn was given "
            f"{sorted({a.name for a in arguments})}. "
            "Hand the batch to update as keyword arguments, and name them in "
            "batch_argnames if they hold other arrays as well."
        )

    def model_of(names: set[str]) -> Model:
        return bound([0 if a.is_array and a.name in names else None for a in arguments])

    return model_of(_told_apart(model_of, names))


def _of_length(arguments: list[_Argument], size: int) -> set[str]:
    """Names of arguments all of whose arrays have ``size`` entries along axis 0."""
    arrays = [a for a in arguments if a.is_array]
    fitting = {a.name for a in arrays if a.value.ndim and a.value.shape[0] == size}
    return fitting - {
        a.name for a in arrays if a.value.ndim and a.value.shape[0] != size
    }


def _named(
    arguments: list[_Argument], names: Sequence[str] | Mapping[str, int], size: int
) -> list[int | None]:
    given = sorted({a.name for a in arguments})
    unknown = sorted(set(names) - set(given))
    if unknown:
        raise ValueError(
            f"batch_argnames names {unknown}, which value_fn does not take or "
            f"update was not given; it was given {given}."
        )
    axes: list[int | None] = []
    for argument in arguments:
        axis = (
            names[argument.name]
            if isinstance(names, Mapping) and (argument.name in names)
            else 0
        )
        carries = (
            argument.name in names
            and argument.is_array
            and argument.value.ndim > axis
            and argument.value.shape[axis] == size
        )
        axes.append(axis if carries else None)
    if isinstance(names, Mapping):
        for name, axis in names.items():
            if not any(
                a.name == name and x is not None
                for a, x in zip(arguments, axes, strict=True)
            ):
                raise ValueError(
                    f"batch_argnames says that axis {axis} of {name!r} counts the "
                    f"{size} examples, but none of its arrays has that many there."
                )
    if all(axis is None for axis in axes):
        raise ValueError(
            f"none of the arrays of {sorted(names)}, which batch_argnames names, has "
            f"the {size} examples along its first axis. Name the axis if it is "
            'another one, as in batch_argnames={"x": 1}.'
        )
    return axes


def _told_apart(model_of: Callable[[set[str]], Model], names: set[str]) -> set[str]:
    """Those of ``names`` that carry the batch, by tracing for twice as many examples.

    What cannot be told is taken for the batch, with a warning.
    """
    if len(names) == 1 or model_of(names).size == 1:
        return names
    if not _traces(model_of(names)):
        without = [names - {n} for n in sorted(names) if _traces(model_of(names - {n}))]
        return without[0] if len(without) == 1 else names
    for name in sorted(names):
        if _traces(model_of(names - {name})) and _uses(model_of(names), name):
            warnings.warn(
                f"value_fn can be evaluated with {name!r} as a part of the batch and "
                f"without: its first axis has {model_of(names).size} entries, as many "
                "as there are examples. It is taken for a part of the batch; name "
                "what is in batch_argnames.",
                stacklevel=2,
            )
    return names


def _traces(model: Model) -> bool:
    """Whether the losses can be evaluated for twice as many examples."""
    double = 2 * model.size
    try:
        losses = jax.eval_shape(model.losses, model.leaves, model.resized(double))
    except Exception:
        return False
    return jnp.shape(losses) == (double,)


def _uses(model: Model, name: str) -> bool:
    """Whether the losses depend on an argument."""
    program = traced(model, model.size)
    used = {v for e in program.equations for v in variables_of(e.inputs)}
    inputs = program.inputs[len(model.leaves) :]
    return any(v in used for v, n in zip(inputs, model.names, strict=True) if n == name)


def traced(model: Model, size: int) -> Program:
    """``model`` as a program for ``size`` examples.

    Raises:
      ValueError: if it cannot be traced for so many.
    """
    number = len(model.leaves)
    leaves = [jax.ShapeDtypeStruct(p.shape, p.dtype) for p in model.leaves]

    def losses(*inputs):
        return [model.losses(inputs[:number], inputs[number:])]

    try:
        program = flatten(losses, *leaves, *model.resized(size))
        shape = program.outputs[0].aval.shape
        if shape != (size,):
            raise ValueError(f"it returns losses of shape {shape} for {size} examples")
    except (TypeError, ValueError) as error:
        raise ValueError(untraceable(model, size, error)) from error
    return program


def untraceable(model: Model, size: int, error: Exception) -> str:
    """Says that ``model`` cannot be evaluated for ``size`` examples."""
    names = sorted(set(model.names))
    return (
        f"value_fn could not be traced for {size} of {model.size} examples, with "
        f"the batch carried by {names}. If these are not the arguments that carry it, "
        f"name those in batch_argnames; examples=1.0 evaluates candidates for all "
        f"examples. The error was: {error}"
    )


def _number_of_examples(
    value_fn: Callable[..., Any], params: PyTree, kwargs: dict[str, Any]
) -> int:
    output = jax.eval_shape(lambda p: value_fn(p, **kwargs), params)
    expectation = "value_fn must return one loss per example, an array of shape [B]"
    if not hasattr(output, "shape"):
        raise TypeError(f"{expectation}; got a {type(output).__name__}.")
    if len(output.shape) != 1 or not output.shape[0]:
        hint = " Do not average over the batch." if not output.shape else ""
        raise ValueError(f"{expectation}; got shape {output.shape}.{hint}")
    if not jnp.issubdtype(output.dtype, jnp.floating):
        raise TypeError(f"{expectation} of real floating dtype; got {output.dtype}.")
    return output.shape[0]


def telling_examples(
    key: jax.Array, losses: jax.Array, count: int
) -> tuple[jax.Array, jax.Array]:
    """Draws examples in proportion to what they can teach.

    q_n = (1 − m)(ℓ_n − min ℓ)/Σ + m/B, with m of 10 %. The draws are systematic: of n
    there are ⌊count · q_n⌋ or one more, in expectation count · q_n.

    Args:
      key: a PRNG key.
      losses: ℓ, shape ``[B]``; those not finite count as the lowest.
      count: b, how many to draw.

    Returns:
      Their indices, shape ``[b]``, and their shares 1/(b B q_n) in a mean over the
      minibatch.
    """
    size = losses.shape[0]
    finite = jnp.isfinite(losses)
    lowest = jnp.min(jnp.where(finite, losses, jnp.inf))
    excess = jnp.where(finite, losses - lowest, 0)
    total = jnp.sum(excess)
    tells = jnp.isfinite(total) & (total > 0)
    chance = jnp.where(tells, excess / jnp.where(tells, total, 1), 1 / size)
    chance = (1 - UNIFORM_SHARE) * chance + UNIFORM_SHARE / size
    rows = systematic_draws(jax.random.uniform(key, (), losses.dtype), chance, count)
    return rows, 1 / (count * size * chance[rows])
