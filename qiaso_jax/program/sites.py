"""Finds where parameters enter a program linearly: the sites of node space.

A site is a variable v that is affine in some parameters and through which all that
these parameters do there passes. Noise added to v stands for a change of the
parameters, and what the noise tells about v is brought back to them by the transpose
of the one linear map parameter → v. The affine chain is followed as far as it goes, so
that a product, the bias added to it and a reshape are one site, at its end; it goes on
into loops, over their constants and what they go through slice by slice.

What follows ``stop_gradient`` sees the clean value. An exception are those that linear
solvers need for their own derivatives: the solution is that of the noisy matrix.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp

from qiaso_jax.program import compat
from qiaso_jax.program.axes import (
    ExampleAxis,
    Mixed,
    Reach,
    Status,
    Use,
    examples_of,
    joined,
    losses_reached,
)
from qiaso_jax.program.equations import Equation, Loop, Program, Variable, variables_of
from qiaso_jax.program.primitives import rule


@dataclasses.dataclass(frozen=True, eq=False)
class Site:
    """Where noise is added.

    Attributes:
      variable: v, of the program or of the body of a loop.
      uses: where the noise is seen.
      leaves: indices of the parameters that v is affine in.
      axis: where v, stacked over the loops around it, counts the examples, each of
        which gets noise of its own; ``None`` where all examples share the noise.
      loops: those around it, the outermost first.
      enters: the first equation that is not linear in v, if one is.
    """

    variable: Variable
    uses: frozenset[Use]
    leaves: frozenset[int]
    axis: ExampleAxis | None
    loops: tuple[Loop, ...]
    enters: Equation | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of v, stacked over all iterations of the loops around it."""
        return (*(loop.length for loop in self.loops), *self.variable.aval.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class Sites:
    """All sites of a program, and what was found on the way.

    Attributes:
      sites: in the order of evaluation.
      carried: by equation, the positions of the operands whose affine dependence on
        parameters goes through it.
      cut: equations that what follows sees the clean results of.
      statistics: those of them that sum up over examples.
      mixers: by parameter in weight space since noise at its nodes would reach the
        losses of other examples, the equation that mixes them.
      statuses: of all variables that depend on the batch.
      reach: whose losses variables reach.
      meet: whether a loss depends on other examples than its own.
    """

    sites: tuple[Site, ...]
    carried: Mapping[Equation, frozenset[int]]
    cut: frozenset[Equation]
    statistics: frozenset[Equation]
    mixers: Mapping[int, Equation | None]
    statuses: Mapping[Variable, ExampleAxis | Mixed]
    reach: Reach
    meet: bool

    def within(self, body: Program | None) -> Iterator[int]:
        """Indices of the sites of the body of a loop, or of those in no loop."""
        for i, site in enumerate(self.sites):
            if body is (site.loops[-1].body if site.loops else None):
                yield i


class _Outside(Exception):
    """Constants of loops that a chain cannot follow, as weights are perturbed there."""


def find_sites(
    program: Program,
    num_parameters: int,
    batch: tuple[ExampleAxis, ...],
    size: int,
    in_weight_space: frozenset[int] = frozenset(),
    hold: bool = False,
) -> Sites:
    """Finds all sites of ``program``.

    Args:
      program: a flattened function of parameters and a batch, whose only result is
        the losses, ``[B]``.
      num_parameters: how many of its inputs are parameters; they come first.
      batch: where the other inputs count the examples.
      size: B.
      in_weight_space: indices of the parameters that get noise themselves.
      hold: whether what is summed up over examples is held at its clean value, so
        that examples that meet there only stay apart.
    """
    statuses = [*[None] * num_parameters, *batch]
    strict = examples_of(program, statuses, size, hold=False)
    held = examples_of(program, statuses, size, hold=True) if hold else strict
    solved = _for_solvers(program)
    cut = held.statistics | {
        e for e in _equations(program) if _stops(e) and e not in solved
    }
    reach = losses_reached(program, size, lambda e: e in cut)
    (losses,) = program.outputs
    status = strict.statuses.get(losses) if isinstance(losses, Variable) else None
    mixers: dict[int, Equation | None] = {}
    closed: set[Variable] = set()
    while True:
        search = _Search(
            program, num_parameters, in_weight_space | set(mixers), closed,
            set(held.statuses), reach,
        )  # fmt: skip
        if search.outside:
            closed |= search.outside
        elif search.mixed:
            mixers |= search.mixed
        else:
            break
    return Sites(
        sites=tuple(search.sites()),
        carried=search.carried,
        cut=frozenset(cut),
        statistics=held.statistics,
        mixers=mixers,
        statuses=strict.statuses,
        reach=reach,
        meet=isinstance(status, Mixed),
    )


def _stops(equation: Equation) -> bool:
    return equation.primitive is compat.primitive("stop_gradient")


def _equations(program: Program) -> Iterator[Equation]:
    """All of them, those in loops and branches included."""
    for equation in program.equations:
        yield equation
        for inner in equation.inner:
            yield from _equations(inner)


def _for_solvers(program: Program) -> set[Equation]:
    """``stop_gradient`` where only the solvers of linear systems see its result.

    They get the factors of the matrix beside the matrix itself, whose derivative is
    the one that counts.
    """
    found: set[Equation] = set()
    _solving_inputs(program, found)
    return found


def _solving_inputs(program: Program, found: set[Equation]) -> list[bool]:
    """Which inputs only solvers see; adds their ``stop_gradient`` to ``found``."""
    others = set(variables_of(program.outputs))
    solving: set[Variable] = set()
    for equation in reversed(program.equations):
        outputs = set(equation.outputs)
        if equation.primitive is compat.primitive("linear_solve"):
            lengths = equation.params["const_lengths"]
            factors = range(lengths.matvec, sum(lengths))
            only = [i in factors for i in range(len(equation.inputs))]
        elif equation.loop is not None:
            only = _solving_inputs(equation.loop.body, found)
        elif outputs & solving and not outputs & others:
            only = [True] * len(equation.inputs)
            if _stops(equation):
                found.add(equation)
        else:
            for body in equation.bodies:
                _solving_inputs(body, found)
            only = [False] * len(equation.inputs)
        for atom, alone in zip(equation.inputs, only, strict=True):
            if isinstance(atom, Variable):
                (solving if alone else others).add(atom)
    return [v in solving and v not in others for v in program.inputs]


class _Search:
    """One pass over the equations; see ``find_sites``."""

    def __init__(
        self,
        program: Program,
        num_parameters: int,
        in_weight_space: frozenset[int] | set[int],
        closed: set[Variable],
        from_batch: set[Variable],
        reach: Reach,
    ):
        self._closed, self._from_batch, self._reach = closed, from_batch, reach
        self.carried: dict[Equation, frozenset[int]] = {}
        self.outside: set[Variable] = set()
        self.mixed: dict[int, Equation | None] = {}
        self._found: dict[Variable, tuple[set[Use], frozenset[int], tuple[Loop, ...]]]
        self._found = {}
        # The parameters that a variable is affine in, and not yet settled.
        self._open: dict[Variable, frozenset[int]] = {}
        self._uses: dict[Variable, list[Use]] = {}
        self._order: dict[Variable, int] = {}
        self._count(program)
        for i, variable in enumerate(program.inputs[:num_parameters]):
            if not jnp.issubdtype(variable.aval.dtype, jnp.inexact):
                continue
            self._open[variable] = frozenset([i])
            is_complex = jnp.issubdtype(variable.aval.dtype, jnp.complexfloating)
            if i in in_weight_space or is_complex:
                self._settle(variable, self._uses.get(variable, []), ())
                del self._open[variable]
        self._walk(program, ())
        self._check()

    def _count(self, program: Program) -> None:
        """Notes all uses that a loss hears of, and the order of the variables."""
        for variable in program.inputs:
            self._order.setdefault(variable, len(self._order))
        for equation in program.equations:
            self._note(equation, equation.inputs)
            for inner in equation.inner:
                self._count(inner)
            for variable in equation.outputs:
                self._order.setdefault(variable, len(self._order))
        self._note(program, program.outputs)

    def _note(self, owner: Equation | Program, atoms: Any) -> None:
        for position, atom in enumerate(atoms):
            if isinstance(atom, Variable) and self._reach.uses.get((owner, position)):
                self._uses.setdefault(atom, []).append((owner, position))

    def _walk(self, program: Program, loops: tuple[Loop, ...]) -> None:
        for equation in program.equations:
            if equation.loop is None:
                self._visit(equation, loops)
            else:
                self._enter(equation, equation.loop, loops)
        for position, atom in enumerate(program.outputs):
            if isinstance(atom, Variable) and self._open.get(atom):
                self._settle(atom, [(program, position)], loops)

    def _settle(
        self, variable: Variable, uses: list[Use], loops: tuple[Loop, ...]
    ) -> None:
        uses = [use for use in uses if self._reach.uses.get(use)]
        if uses:
            leaves = self._open[variable]
            self._found.setdefault(variable, (set(), leaves, loops))[0].update(uses)

    def _enter(self, equation: Equation, loop: Loop, loops: tuple[Loop, ...]) -> None:
        """Into a loop: over constants that are parameters alone, and over slices."""
        through = set()
        for position, (atom, inner) in enumerate(
            zip(equation.inputs, loop.body.inputs, strict=True)
        ):
            if not isinstance(atom, Variable) or not self._open.get(atom):
                continue
            constant = position < loop.num_constants
            sliced = position >= loop.num_constants + loop.num_carry
            follows = sliced or (constant and atom not in self._from_batch)
            if follows and inner not in self._closed:
                through.add(position)
                self._open[inner] = self._open[atom]
                self._settle_if_shared(inner, (*loops, loop))
            else:
                self._settle(atom, [(equation, position)], loops)
        if through:
            self.carried[equation] = frozenset(through)
        self._walk(loop.body, (*loops, loop))

    def _visit(self, equation: Equation, loops: tuple[Loop, ...]) -> None:
        variables = [a if isinstance(a, Variable) else None for a in equation.inputs]
        is_open = [v is not None and bool(self._open.get(v)) for v in variables]
        through = self._through(equation, variables, is_open)
        for position, variable in enumerate(variables):
            if variable is not None and is_open[position] and position not in through:
                self._settle(variable, [(equation, position)], loops)
        if through:
            self.carried[equation] = through
            leaves = [
                self._open[v] for p, v in enumerate(variables) if p in through and v
            ]
            for output in equation.outputs:
                self._open[output] = frozenset().union(*leaves)
        for output in equation.outputs:
            self._settle_if_shared(output, loops)

    def _settle_if_shared(self, variable: Variable, loops: tuple[Loop, ...]) -> None:
        """What examples use twice is settled before, so that all uses see the noise."""
        uses = self._uses.get(variable, [])
        shared = variable in self._from_batch and len(uses) > 1
        if shared and self._open.get(variable):
            self._settle(variable, uses, loops)
            del self._open[variable]

    def _through(
        self, equation: Equation, variables: list[Any], is_open: list[bool]
    ) -> frozenset[int]:
        """Positions of the operands that ``equation`` is linear in."""
        known = rule(equation)
        opened = frozenset(p for p, flag in enumerate(is_open) if flag)
        if not opened or known.linear is None:
            return frozenset()
        if not all(
            jnp.issubdtype(v.aval.dtype, jnp.floating) for v in equation.outputs
        ):
            return frozenset()
        linear = opened & known.linear(equation)
        if known.with_data:
            return linear
        pure = frozenset(p for p in linear if variables[p] not in self._from_batch)
        if known.joint or equation.name not in ("mul", "div"):
            # Of the factors of a product, those that have no parameter in common.
            apart = known.joint or len(pure) < 2 or self._disjoint(variables, opened)
            return pure if apart else frozenset()
        if len(opened) == 2:
            apart = pure and self._disjoint(variables, opened)
            return linear if apart and linear == opened else frozenset()
        return frozenset(p for p in linear if self._scales(variables, p))

    def _disjoint(self, variables: list[Any], opened: frozenset[int]) -> bool:
        leaves = [self._open[variables[p]] for p in opened]
        return sum(map(len, leaves)) == len(frozenset().union(*leaves))

    def _scales(self, variables: list[Any], position: int) -> bool:
        """Whether the other factor cannot switch single nodes off, as dropout does."""
        if variables[position] not in self._from_batch:
            return True
        other = variables[1 - position]
        if other is None:
            return True
        where = self._reach.variables.get(other)
        return other not in self._from_batch and not isinstance(where, ExampleAxis)

    def _check(self) -> None:
        """Notes what cannot be: see ``find_sites``."""
        for variable, (uses, leaves, loops) in self._found.items():
            if loops:
                body, number = loops[-1].body, loops[-1].num_constants
                if variable in body.inputs[:number]:
                    self.outside.add(variable)
            status = self._status(uses)
            if variable in self._from_batch and not isinstance(status, ExampleAxis):
                mixer = status.equation if isinstance(status, Mixed) else None
                self.mixed |= dict.fromkeys(leaves, mixer)

    def _status(self, uses: set[Use]) -> Status:
        return joined((self._reach.uses[use] for use in uses), None)

    def sites(self) -> list[Site]:
        found = []
        for variable, (uses, leaves, loops) in self._found.items():
            status = self._status(uses)
            axis = status if isinstance(status, ExampleAxis) else None
            owners = [o for o, _ in uses if isinstance(o, Equation) and not _stops(o)]
            first = min(owners, key=lambda e: self._order[e.outputs[0]], default=None)
            found.append(Site(variable, frozenset(uses), leaves, axis, loops, first))
        found.sort(key=lambda site: self._order[site.variable])
        return found
