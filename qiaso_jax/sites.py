"""Finds where parameters enter a JAX function linearly: the sites of node space.

A site is an intermediate array v that is affine in some parameters and through which
all that these parameters do there passes. Noise added to v stands for a change of the
parameters, and what the noise tells about v is brought back to them by the transpose
of the one linear map parameter → v. The affine chain is followed as far as it goes, so
that a product, the bias added to it and a reshape are one site, at its end.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from qiaso_jax.interpret import (
    MIXED,
    Environment,
    ExampleAxis,
    Program,
    bind,
    is_literal,
)

RESULT = -1
"""Stands for the result of a program where the index of an equation is expected."""

_REARRANGING = {
    "convert_element_type",
    "copy",
    "copy_p",
    "expand_dims",
    "neg",
    "reshape",
    "squeeze",
    "transpose",
}
PATCHWORK = {"concatenate", "pad", "select_n"}
_LINEAR = PATCHWORK | {
    "broadcast_in_dim",
    "cumsum",
    "dynamic_slice",
    "gather",
    "reduce_sum",
    "rev",
    "slice",
}
SUMS = {"add", "add_any", "sub"}
PRODUCTS = {"conv_general_dilated", "dot_general"}


class Site(NamedTuple):
    """Where noise is added.

    Attributes:
      variable: v, of the program.
      uses: indices of the equations that see the noise; ``RESULT`` for the result.
      leaves: indices of the parameters that v is affine in.
      axis: where v counts the examples, each of which gets noise of its own; ``None``
        in weight space, where all examples share the noise.
    """

    variable: Any
    uses: frozenset[int]
    leaves: frozenset[int]
    axis: ExampleAxis | None


class Sites(NamedTuple):
    """All sites of a program.

    Attributes:
      sites: in the order of evaluation.
      carried: by index of an equation, the positions of the operands whose affine
        dependence on parameters goes through it.
    """

    sites: tuple[Site, ...]
    carried: Mapping[int, frozenset[int]]


def find_sites(program: Program, in_weight_space: frozenset[int]) -> Sites:
    """Finds all sites of ``program``.

    Args:
      program: a flattened function.
      in_weight_space: indices of the parameters that get noise themselves.
    """
    search = _Search(program, in_weight_space)
    if search.without_axis:
        return find_sites(program, in_weight_space | search.without_axis)
    return search.result()


class _Search:
    """One pass over the equations; see ``find_sites``."""

    def __init__(self, program: Program, in_weight_space: frozenset[int]):
        self._program = program
        self._uses = _uses(program)
        self._found: dict[Any, tuple[set[int], frozenset[int]]] = {}
        self._carried: dict[int, frozenset[int]] = {}
        self.without_axis: frozenset[int] = frozenset()
        # The parameters that a variable is affine in, and not yet settled.
        self._open: dict[Any, frozenset[int]] = {}
        # Variables that depend on the batch or, other than linearly, on parameters.
        self._data: set[Any] = set(program.batch)
        for i, variable in enumerate(program.parameters):
            if not jnp.issubdtype(variable.aval.dtype, jnp.floating):
                continue
            if i in in_weight_space:
                uses = self._uses.get(variable, [])
                if uses:
                    self._found[variable] = (set(uses), frozenset([i]))
                self._data.add(variable)
            else:
                self._open[variable] = frozenset([i])
        for index, equation in enumerate(program.equations):
            self._visit(index, equation)
        if not is_literal(program.losses) and self._open.get(program.losses):
            self._settle(program.losses, [RESULT])

    def result(self) -> Sites:
        order = {v: i for i, v in enumerate(self._program.parameters)}
        for index, equation in enumerate(self._program.equations):
            order.update(dict.fromkeys(equation.outvars, len(order) + index))
        sites = [
            Site(variable, frozenset(uses), leaves, self._axis(variable))
            for variable, (uses, leaves) in self._found.items()
        ]
        sites.sort(key=lambda site: order[site.variable])
        return Sites(tuple(sites), self._carried)

    def _axis(self, variable: Any) -> ExampleAxis | None:
        return self._program.example_axes.get(variable)

    def _settle(self, variable: Any, uses: Sequence[int]) -> None:
        leaves = self._open[variable]
        if self._axis(variable) == MIXED:
            self.without_axis |= leaves
        self._found.setdefault(variable, (set(), leaves))[0].update(uses)

    def _visit(self, index: int, equation: Any) -> None:
        variables = [None if is_literal(a) else a for a in equation.invars]
        is_open = [bool(self._open.get(v)) for v in variables]
        if any(is_open):
            through = self._through(equation, variables, is_open)
        else:
            through = frozenset()
        for position, variable in enumerate(variables):
            stays_open = is_open[position] and position not in through
            if stays_open and equation.primitive.name != "stop_gradient":
                self._settle(variable, [index])
        if through:
            self._carried[index] = through
            (output,) = equation.outvars
            leaves = [self._open[variables[p]] for p in through]
            self._open[output] = frozenset().union(*leaves)
        if any(
            v in self._data or (opened and p not in through)
            for p, (v, opened) in enumerate(zip(variables, is_open, strict=True))
        ):
            self._data.update(equation.outvars)
        for output in equation.outvars:
            # What is used twice as data is settled before, so that the noise is seen
            # by all uses.
            uses = self._uses.get(output, [])
            if self._open.get(output) and output in self._data and len(uses) > 1:
                self._settle(output, uses)
                del self._open[output]

    def _through(
        self, equation: Any, variables: Sequence[Any], is_open: Sequence[bool]
    ) -> frozenset[int]:
        """Positions of the operands that ``equation`` is linear in."""
        name = equation.primitive.name
        opened = frozenset(p for p, flag in enumerate(is_open) if flag)
        if len(equation.outvars) != 1 or not jnp.issubdtype(
            equation.outvars[0].aval.dtype, jnp.floating
        ):
            return frozenset()
        pure = frozenset(p for p in opened if variables[p] not in self._data)
        disjoint = sum(len(self._open[variables[p]]) for p in opened) == len(
            frozenset().union(*(self._open[variables[p]] for p in opened))
        )
        if name in _REARRANGING or name in SUMS:
            return opened
        if name in _LINEAR:
            return pure
        if name in PRODUCTS:
            return pure if disjoint or len(pure) == 1 else frozenset()
        if name == "mul":
            if len(opened) == 2:
                return opened if disjoint and pure else frozenset()
            (position,) = opened
            return opened if self._scales(variables, position) else frozenset()
        if name == "div" and opened == {0}:
            return opened if self._scales(variables, 0) else frozenset()
        return frozenset()

    def _scales(self, variables: Sequence[Any], position: int) -> bool:
        """Whether the other factor cannot switch single nodes off, as dropout does."""
        other = variables[1 - position]
        return variables[position] not in self._data or self._axis(other) is None


def _uses(program: Program) -> dict[Any, list[int]]:
    uses: dict[Any, list[int]] = {}
    for index, equation in enumerate(program.equations):
        for atom in dict.fromkeys(a for a in equation.invars if not is_literal(a)):
            uses.setdefault(atom, []).append(index)
    if not is_literal(program.losses):
        uses.setdefault(program.losses, []).append(RESULT)
    return uses


def perturbed_losses(
    program: Program, sites: Sites, clean: Environment
) -> Callable[[Sequence[Any]], Any]:
    """The function of the noise at each site; only what noise reaches is evaluated."""
    noisy_at = {
        (use, site.variable): i
        for i, site in enumerate(sites.sites)
        for use in site.uses
    }
    reached: set[Any] = set()
    needed: list[int] = []
    for index, equation in enumerate(program.equations):
        if any(
            not is_literal(a) and (a in reached or (index, a) in noisy_at)
            for a in equation.invars
        ):
            needed.append(index)
            reached.update(equation.outvars)

    def losses(noise):
        env: dict[Any, Any] = {}
        displaced: dict[int, Any] = {}

        def read(atom, index):
            if is_literal(atom):
                return atom.val
            value = env[atom] if atom in env else clean[atom]
            site = noisy_at.get((index, atom))
            if site is None:
                return value
            if site not in displaced:
                displaced[site] = value + noise[site]
            return displaced[site]

        for index in needed:
            equation = program.equations[index]
            outputs = bind(equation, [read(a, index) for a in equation.invars])
            env.update(zip(equation.outvars, outputs, strict=True))
        return read(program.losses, RESULT)

    return losses
