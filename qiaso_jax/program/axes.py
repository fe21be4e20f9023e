"""Where examples are: which axis counts them, and whether they stay apart.

Both ways through a program, by the rules of the primitives: forwards, where the axis of
the examples of the batch goes; backwards, whose losses an entry of a variable reaches.
Variables within loops are looked at as stacked over all iterations: their first axes
are those of the loops around them, the outermost first.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from qiaso_jax.program import compat
from qiaso_jax.program.equations import (
    Atom,
    Equation,
    Literal,
    Program,
    Variable,
)
from qiaso_jax.program.primitives import rule


class ExampleAxis(NamedTuple):
    """Entries along ``axis`` belong to examples, ``repeats`` adjacent ones to each.

    After ``repeats`` entries for each of the examples, it may start over again.
    """

    axis: int
    repeats: int


class Mixed(NamedTuple):
    """Entries belong to several examples, since ``equation`` mixes them."""

    equation: Equation | None


Status = ExampleAxis | Mixed | None
"""Of a variable; None if no example has to do with it."""

LOSSES = ExampleAxis(0, 1)
"""The losses, one after the other."""


def joined(statuses: Iterable[Status], equation: Equation | None) -> Status:
    """What holds if all of ``statuses`` do."""
    found: Status = None
    for status in statuses:
        if status is None or status == found:
            continue
        if isinstance(status, Mixed) or isinstance(found, Mixed):
            return found if isinstance(found, Mixed) else status
        if found is not None:
            return Mixed(equation)
        found = status
    return found


def _shape(atom: Atom) -> tuple[int, ...]:
    return tuple(getattr(atom.aval, "shape", ()))


class _Follow:
    """Follows the axis of ``size`` examples through single equations."""

    def __init__(self, size: int, depth: int):
        self._size, self._depth = size, depth

    def forwards(self, equation: Equation, position: int, where: ExampleAxis) -> Status:
        """From an operand to the results."""
        if where.axis < self._depth:
            return where
        atom, output = equation.inputs[position], equation.outputs[0]
        if equation.primitive is compat.primitive("reshape"):
            return self._reshaped(equation, atom, output, where)
        axis = self._axes(equation, position)[where.axis - self._depth]
        return self._moved(equation, atom, where, axis, output)

    def backwards(
        self, equation: Equation, position: int, where: ExampleAxis, output: Variable
    ) -> Status:
        """From a result to an operand."""
        if where.axis < self._depth:
            return where
        atom = equation.inputs[position]
        if equation.primitive is compat.primitive("reshape"):
            return self._reshaped(equation, output, atom, where)
        axes = self._axes(equation, position)
        wanted = where.axis - self._depth
        axis = axes.index(wanted) if wanted in axes else None
        return self._moved(equation, output, where, axis, atom)

    def _axes(self, equation: Equation, position: int) -> Sequence[int | None]:
        find = rule(equation).axes
        if find is None:
            return (None,) * len(_shape(equation.inputs[position]))
        return find(equation)[position]

    def _moved(
        self,
        equation: Equation,
        source: Atom,
        where: ExampleAxis,
        axis: int | None,
        target: Atom,
    ) -> Status:
        length = _shape(source)[where.axis - self._depth]
        if axis is None or _shape(target)[axis] != length:
            return Mixed(equation)
        return where._replace(axis=axis + self._depth)

    def _reshaped(
        self, equation: Equation, source: Atom, target: Atom, where: ExampleAxis
    ) -> Status:
        if not math.prod(_shape(source)):
            return Mixed(equation)
        # In the order of the entries, those of one example are this far from the
        # next one's; the axis that counts in such steps is the one.
        stride = where.repeats * math.prod(
            _shape(source)[where.axis - self._depth + 1 :]
        )
        step = 1
        for axis in reversed(range(len(_shape(target)))):
            length = _shape(target)[axis]
            repeats, rest = divmod(stride, step)
            if not rest and not length % (repeats * self._size):
                return ExampleAxis(axis + self._depth, repeats)
            step *= length
        return Mixed(equation)


def _shifted(status: Status, depth: int, into: bool, equation: Equation) -> Status:
    """Of a variable that is the same in all iterations, into a loop or out of it."""
    if not isinstance(status, ExampleAxis) or status.axis < depth:
        return status
    if into:
        return status._replace(axis=status.axis + 1)
    if status.axis == depth:
        return Mixed(equation)
    return status._replace(axis=status.axis - 1)


class Origin(NamedTuple):
    """What ``examples_of`` finds.

    Attributes:
      statuses: of all variables that depend on the batch, those in loops included.
      statistics: equations that sum examples up, where those are held.
    """

    statuses: dict[Variable, ExampleAxis | Mixed]
    statistics: frozenset[Equation]


def examples_of(
    program: Program, statuses: Sequence[Status], size: int, hold: bool
) -> Origin:
    """Follows the examples from the inputs on.

    Args:
      program: a flattened function.
      statuses: of its inputs.
      size: B, the number of examples.
      hold: whether what is the same for all examples because it is summed up over
        them counts as not depending on them.
    """
    walk = _Forwards(size, hold)
    walk.program(program, statuses, 0)
    return Origin(walk.found, frozenset(walk.statistics))


class _Forwards:
    def __init__(self, size: int, hold: bool):
        self._size, self._hold = size, hold
        self.found: dict[Variable, ExampleAxis | Mixed] = {}
        self.statistics: set[Equation] = set()

    def of(self, atom: Atom) -> Status:
        return None if isinstance(atom, Literal) else self.found.get(atom)

    def _set(self, variable: Variable, status: Status) -> None:
        if status is None:
            self.found.pop(variable, None)
        else:
            self.found[variable] = status

    def program(
        self, program: Program, statuses: Sequence[Status], depth: int
    ) -> list[Status]:
        for variable, status in zip(program.inputs, statuses, strict=True):
            self._set(variable, status)
        for equation in program.equations:
            for variable, status in zip(
                equation.outputs, self._results(equation, depth), strict=True
            ):
                self._set(variable, status)
        return [self.of(atom) for atom in program.outputs]

    def _results(self, equation: Equation, depth: int) -> list[Status]:
        statuses = [self.of(atom) for atom in equation.inputs]
        if all(s is None for s in statuses):
            return [None] * len(equation.outputs)
        if equation.loop is not None:
            return self._loop(equation, statuses, depth)
        if equation.bodies:
            run = self._while if equation.name == "while" else self._cond
            return run(equation, statuses, depth)
        follow = _Follow(self._size, depth)
        if self._hold and self._summed(equation, statuses, depth):
            self.statistics.add(equation)
            return [None] * len(equation.outputs)
        moved = [
            follow.forwards(equation, i, s) if isinstance(s, ExampleAxis) else s
            for i, s in enumerate(statuses)
        ]
        return [joined(moved, equation)] * len(equation.outputs)

    def _summed(
        self, equation: Equation, statuses: Sequence[Status], depth: int
    ) -> bool:
        reduces = rule(equation).reduces
        if reduces is None:
            return False
        return all(
            s is None or (isinstance(s, ExampleAxis) and s.axis - depth in axes)
            for s, axes in zip(statuses, reduces(equation), strict=True)
        )

    def _loop(
        self, equation: Equation, statuses: Sequence[Status], depth: int
    ) -> list[Status]:
        loop = equation.loop
        assert loop is not None
        constants, carry, slices = loop.apart(statuses)
        constants = [_shifted(s, depth, True, equation) for s in constants]
        carry = [_shifted(s, depth, True, equation) for s in carry]
        while True:
            outputs = self.program(loop.body, [*constants, *carry, *slices], depth + 1)
            # An example per iteration meets those before it in what is carried.
            after = [
                Mixed(equation) if _counts(s, depth) else s
                for s in outputs[: loop.num_carry]
            ]
            new = [joined(pair, equation) for pair in zip(carry, after, strict=True)]
            if new == carry:
                break
            carry = new
        final = [_shifted(s, depth, False, equation) for s in carry]
        return [*final, *outputs[loop.num_carry :]]

    def _while(
        self, equation: Equation, statuses: Sequence[Status], depth: int
    ) -> list[Status]:
        condition, body = equation.bodies
        num_condition = equation.params["cond_nconsts"]
        num_body = equation.params["body_nconsts"]
        of_condition = statuses[:num_condition]
        constants = statuses[num_condition : num_condition + num_body]
        carry = list(statuses[num_condition + num_body :])
        while True:
            after = self.program(body, [*constants, *carry], depth)
            new = [joined(pair, equation) for pair in zip(carry, after, strict=True)]
            if new == carry:
                break
            carry = new
        if self.program(condition, [*of_condition, *carry], depth) != [None]:
            return [Mixed(equation)] * len(carry)
        return carry

    def _cond(
        self, equation: Equation, statuses: Sequence[Status], depth: int
    ) -> list[Status]:
        index, *operands = statuses
        results = [self.program(b, operands, depth) for b in equation.bodies]
        if index is not None:
            return [Mixed(equation)] * len(equation.outputs)
        return [joined(column, equation) for column in zip(*results, strict=True)]


def _counts(status: Status, depth: int) -> bool:
    """Whether every iteration of the loop at ``depth`` has an example of its own."""
    return isinstance(status, ExampleAxis) and status.axis == depth


Use = tuple[Equation | Program, int]
"""An operand of an equation, or a result of a program, by its position."""


class Reach(NamedTuple):
    """What ``losses_reached`` finds.

    Attributes:
      variables: whose losses their entries reach; None, or nothing, for no loss.
      uses: the same of single uses.
    """

    variables: dict[Variable, Status]
    uses: dict[Use, Status]


def losses_reached(
    program: Program, size: int, cut: Callable[[Equation], bool]
) -> Reach:
    """Follows the losses back to all variables.

    Args:
      program: a flattened function whose only result is the losses, ``[B]``.
      size: B.
      cut: of an equation, whether what enters it is not to be heard.
    """
    walk = _Backwards(size, cut)
    walk.program(program, [LOSSES], 0)
    return Reach(walk.variables, walk.uses)


class _Backwards:
    def __init__(self, size: int, cut: Callable[[Equation], bool]):
        self._size, self._cut = size, cut
        self.variables: dict[Variable, Status] = {}
        self.uses: dict[Use, Status] = {}

    def program(
        self, program: Program, results: Sequence[Status], depth: int
    ) -> list[Status]:
        local: dict[Variable, Status] = {}
        self._use(program, program.outputs, results, local, None)
        for equation in reversed(program.equations):
            statuses = [local.get(v) for v in equation.outputs]
            operands = self._operands(equation, statuses, depth)
            self._use(equation, equation.inputs, operands, local, equation)
        self.variables.update(local)
        return [local.get(v) for v in program.inputs]

    def _use(
        self,
        owner: Equation | Program,
        atoms: Sequence[Atom],
        statuses: Sequence[Status],
        local: dict[Variable, Status],
        equation: Equation | None,
    ) -> None:
        for position, (atom, status) in enumerate(zip(atoms, statuses, strict=True)):
            self.uses[owner, position] = status
            if isinstance(atom, Variable):
                local[atom] = joined([local.get(atom), status], equation)

    def _operands(
        self, equation: Equation, statuses: Sequence[Status], depth: int
    ) -> list[Status]:
        nothing: list[Status] = [None] * len(equation.inputs)
        if all(s is None for s in statuses) or self._cut(equation):
            return nothing
        if equation.loop is not None:
            return self._loop(equation, statuses, depth)
        if equation.bodies:
            run = self._while if equation.name == "while" else self._cond
            return run(equation, statuses, depth)
        follow = _Follow(self._size, depth)

        def back(position: int) -> Status:
            return joined(
                (
                    follow.backwards(equation, position, s, v)
                    if isinstance(s, ExampleAxis)
                    else s
                    for v, s in zip(equation.outputs, statuses, strict=True)
                ),
                equation,
            )

        return [back(i) for i in range(len(equation.inputs))]

    def _loop(
        self, equation: Equation, statuses: Sequence[Status], depth: int
    ) -> list[Status]:
        loop = equation.loop
        assert loop is not None
        final, slices = list(statuses[: loop.num_carry]), statuses[loop.num_carry :]
        after = [_shifted(s, depth, True, equation) for s in final]
        while True:
            before = self.program(loop.body, [*after, *slices], depth + 1)
            constants, carry, stacked = loop.apart(before)
            # What an iteration hands on reaches the examples of later ones.
            carry = [Mixed(equation) if _counts(s, depth) else s for s in carry]
            new = [joined(pair, equation) for pair in zip(after, carry, strict=True)]
            if new == after:
                break
            after = new
        outer = [_shifted(s, depth, False, equation) for s in [*constants, *carry]]
        return [*outer, *stacked]

    def _while(
        self, equation: Equation, statuses: Sequence[Status], depth: int
    ) -> list[Status]:
        condition, body = equation.bodies
        num_condition = equation.params["cond_nconsts"]
        carry = list(statuses)
        of_condition = self.program(condition, [Mixed(equation)], depth)
        heard = of_condition[num_condition:]
        carry = [joined(pair, equation) for pair in zip(carry, heard, strict=True)]
        while True:
            before = self.program(body, carry, depth)
            num_body = len(before) - len(carry)
            new = [
                joined(pair, equation)
                for pair in zip(carry, before[num_body:], strict=True)
            ]
            if new == carry:
                break
            carry = new
        return [*of_condition[:num_condition], *before[:num_body], *carry]

    def _cond(
        self, equation: Equation, statuses: Sequence[Status], depth: int
    ) -> list[Status]:
        found = [self.program(b, statuses, depth) for b in equation.bodies]
        operands = [joined(column, equation) for column in zip(*found, strict=True)]
        return [Mixed(equation), *operands]
