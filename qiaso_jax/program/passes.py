"""The passes through a program: clean, with its affine chains, and with noise.

In the clean pass only the affine chains from parameters to sites can be differentiated:
its transpose brings what is known about the sites back to the parameters, at any depth
of loops, and nothing else has a derivative. In a noisy pass only what noise reaches is
evaluated, one clean and one noisy iteration of a loop beside each other.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from qiaso_jax import _varying
from qiaso_jax.program.equations import (
    Atom,
    Environment,
    Equation,
    Loop,
    Program,
    Variable,
    bind,
    evaluate,
    run,
    scan,
)
from qiaso_jax.program.sites import Sites

Visit = Callable[[int, Program, Environment], Any]
"""Of a site: its index, the program of its level, and the clean values there."""


def harvest(
    program: Program,
    sites: Sites,
    leaves: Sequence[Any],
    batch: Sequence[Any],
    visit: Visit,
    wanted: Collection[int],
    looked_up: Mapping[Variable, Any],
    evaluated: Collection[Equation] | None = None,
) -> tuple[dict[int, Any], tuple[Environment, dict[int, Any]]]:
    """The clean pass. Differentiated, only the chains from leaves to sites are seen.

    Args:
      program: a flattened function.
      sites: of ``program``.
      leaves: of the parameters.
      batch: the other inputs.
      visit: what to take along from every site, such as a mask of its nodes.
      wanted: indices of the sites whose v is to be returned.
      looked_up: clean values of variables that need not be evaluated.
      evaluated: the equations that are, those of chains excepted; all if ``None``.

    Returns:
      v of the sites wanted, stacked over loops, by index; and the clean values of all
      variables that are in no loop with what ``visit`` returned, by index.
    """
    chains = Environment(zip(program.inputs, [*leaves, *batch], strict=True))
    clean = Environment(program.constants)
    clean.update(looked_up)
    for variable, value in chains.items():
        clean.setdefault(variable, jax.lax.stop_gradient(value))
    found, extras = _walk(program, None, sites, chains, clean, visit, wanted, evaluated)
    return found, (clean, extras)


def chains(
    program: Program,
    sites: Sites,
    leaves: Environment,
    data: Mapping[Variable, Any],
) -> dict[int, Any]:
    """V of all sites, by index, from what their chains alone are made of.

    Args:
      program: a flattened function.
      sites: of ``program``.
      leaves: the values of the parameters, by their variables.
      data: clean values of all else that the chains look at outside of loops.
    """
    indices = range(len(sites.sites))
    known = Environment(data)
    return _walk(
        program, None, sites, Environment(leaves), known, _nothing, indices, ()
    )[0]


def _nothing(index: int, program: Program, clean: Environment) -> None:
    del index, program, clean


def _walk(
    program: Program,
    body: Program | None,
    sites: Sites,
    chains: Environment,
    clean: Environment,
    visit: Visit,
    wanted: Collection[int],
    evaluated: Collection[Equation] | None,
) -> tuple[dict[int, Any], dict[int, Any]]:
    found, extras = {}, {}
    for equation in program.equations:
        carried = sites.carried.get(equation, frozenset())
        if not carried and evaluated is not None and equation not in evaluated:
            continue
        operands = [
            chains[a] if p in carried and isinstance(a, Variable) else clean.read(a)
            for p, a in enumerate(equation.inputs)
        ]
        if equation.loop is not None and carried:
            outputs, inner, more = _loop(
                equation, sites, operands, carried, visit, wanted
            )
            found |= inner
            extras |= more
        else:
            outputs = bind(equation, operands)
            if carried:
                chains.update(zip(equation.outputs, outputs, strict=True))
        for variable, output in zip(equation.outputs, outputs, strict=True):
            clean.setdefault(variable, jax.lax.stop_gradient(output))
    for i in sites.within(body):
        extras[i] = visit(i, program, clean)
        if i in wanted:
            found[i] = chains[sites.sites[i].variable]
    return found, extras


def _loop(
    equation: Equation,
    sites: Sites,
    operands: Sequence[Any],
    carried: frozenset[int],
    visit: Visit,
    wanted: Collection[int],
) -> tuple[list[Any], dict[int, Any], dict[int, Any]]:
    loop = equation.loop
    assert loop is not None

    def body(constants, carry, slices):
        inputs = [*constants, *carry, *slices]
        chains = Environment(
            (v, inputs[p]) for p, v in enumerate(loop.body.inputs) if p in carried
        )
        clean = Environment(loop.body.constants)
        for variable, value in zip(loop.body.inputs, inputs, strict=True):
            clean[variable] = jax.lax.stop_gradient(value)
        inner = _walk(loop.body, loop.body, sites, chains, clean, visit, wanted, None)
        return [*map(clean.read, loop.body.outputs), inner]

    *outputs, (found, extras) = scan(loop, body, operands)
    return outputs, found, extras


class Noise(NamedTuple):
    """Noise at some sites, for one noisy pass.

    Attributes:
      feeds: by index of the site, a pytree of arrays that is stacked over the loops
        around the site, and sliced on the way into them.
      at: the displacement that a feed, sliced, stands for.
    """

    feeds: Mapping[int, Any]
    at: Callable[[int, Any], Any]


class Reached:
    """What noise at some sites reaches.

    Attributes:
      variables: those that noise reaches, in loops too.
    """

    def __init__(self, program: Program, sites: Sites, indices: Iterable[int]):
        """Follows the noise at the sites of the given ``indices``."""
        self._sites = sites
        self._noisy = {u: i for i in indices for u in sites.sites[i].uses}
        self._entered: set[Any] = set()
        for i in indices:
            self._entered.update(sites.sites[i].loops)
        self.variables: set[Variable] = set()
        self._walk(program)

    def site(self, owner: Equation | Program, position: int) -> int | None:
        """The site whose noise is seen by a use, or None."""
        return self._noisy.get((owner, position))

    def __call__(self, owner: Equation | Program, position: int, atom: Atom) -> bool:
        """Whether the value that a use sees is a noisy one."""
        return atom in self.variables or (owner, position) in self._noisy

    def needs(self, equation: Equation) -> bool:
        """Whether an equation has to be evaluated."""
        if equation in self._sites.cut:
            return False
        return self.enters(equation) or any(
            self(equation, p, a) for p, a in enumerate(equation.inputs)
        )

    def enters(self, equation: Equation) -> bool:
        """Whether an equation is a loop with noisy sites within."""
        return equation.loop is not None and equation.loop in self._entered

    def sites_in(self, loop: Loop) -> list[int]:
        """Indices of the noisy sites within a loop, at any depth."""
        sites = self._sites.sites
        return sorted({i for i in self._noisy.values() if loop in sites[i].loops})

    def cuts(self, program: Program) -> bool:
        """Whether noise ends anywhere in ``program``."""
        return any(
            e in self._sites.cut or any(map(self.cuts, e.inner))
            for e in program.equations
        )

    def _walk(self, program: Program) -> None:
        for equation in program.equations:
            if not self.needs(equation):
                continue
            for inner in equation.bodies:
                self.variables.update(inner.inputs)
                self._walk(inner)
            if equation.loop is None:
                self.variables.update(equation.outputs)
            else:
                self._loop(equation)

    def _loop(self, equation: Equation) -> None:
        loop = equation.loop
        assert loop is not None
        first = loop.num_constants
        carry = loop.body.inputs[first : first + loop.num_carry]
        for p, (atom, inner) in enumerate(
            zip(equation.inputs, loop.body.inputs, strict=True)
        ):
            if self(equation, p, atom):
                self.variables.add(inner)
        before = -1
        while before != len(self.variables):
            before = len(self.variables)
            self._walk(loop.body)
            for p, variable in enumerate(carry):
                if self(loop.body, p, loop.body.outputs[p]):
                    self.variables.add(variable)
        for p, variable in enumerate(equation.outputs):
            carried = p < len(carry) and carry[p] in self.variables
            if carried or self(loop.body, p, loop.body.outputs[p]):
                self.variables.add(variable)


Through = Callable[
    [Equation, Reached, Noise, list[Any], Mapping[Variable, Any]], list[Any]
]
"""Evaluates a loop on noisy operands, given the clean values around it."""


def perturb(
    program: Program,
    reached: Reached,
    noise: Noise,
    inputs: Mapping[Variable, Any],
    clean: Mapping[Variable, Any],
    equations: Iterable[Equation] | None = None,
    through: Through | None = None,
) -> tuple[list[Any], Environment]:
    """A noisy pass.

    Args:
      program: a flattened function, or the body of one of its loops.
      reached: what the noise reaches.
      noise: at the sites.
      inputs: noisy values of those inputs that noise reaches.
      clean: the clean values of all variables.
      equations: those to evaluate; all that noise reaches if None.
      through: what takes the place of a noisy loop, if not that.

    Returns:
      The results of ``program``, and the values of variables that noise reaches.
    """
    values = Environment(inputs)
    displaced: dict[int, Any] = {}

    def read(owner: Equation | Program, position: int, atom: Atom) -> Any:
        if not isinstance(atom, Variable):
            return atom.val
        value = values[atom] if atom in values else clean[atom]
        site = reached.site(owner, position)
        if site is None:
            return value
        if site not in displaced:
            displaced[site] = value + noise.at(site, noise.feeds[site])
        return displaced[site]

    for equation in program.equations if equations is None else equations:
        if not reached.needs(equation):
            continue
        operands = [read(equation, p, a) for p, a in enumerate(equation.inputs)]
        if equation.loop is not None:
            enter = through or _noisy_loop
            outputs = enter(equation, reached, noise, operands, clean)
        elif any(map(reached.cuts, equation.bodies)):
            run = _noisy_while if equation.name == "while" else _noisy_cond
            outputs = run(equation, reached, noise, operands, clean)
        else:
            outputs = bind(equation, operands)
        values.update(
            (variable, output)
            for variable, output in zip(equation.outputs, outputs, strict=True)
            if variable in reached.variables
        )
    if equations is not None:
        return [], values
    return [read(program, p, a) for p, a in enumerate(program.outputs)], values


def _both(
    body: Program,
    reached: Reached,
    noise: Noise,
    clean: Sequence[Any],
    noisy: Sequence[Any],
) -> tuple[list[Any], list[Any]]:
    """The clean and the noisy results of a body."""
    values = evaluate(body, clean)
    inputs = {
        variable: value
        for variable, value in zip(body.inputs, noisy, strict=True)
        if variable in reached.variables
    }
    results, _ = perturb(body, reached, noise, inputs, values)
    return list(map(values.read, body.outputs)), results


def clean_operands(equation: Equation, clean: Mapping[Variable, Any]) -> list[Any]:
    """The operands of an equation as they are without noise."""
    return [clean[a] if isinstance(a, Variable) else a.val for a in equation.inputs]


def _noisy_loop(
    equation: Equation,
    reached: Reached,
    noise: Noise,
    operands: list[Any],
    clean: Mapping[Variable, Any],
) -> list[Any]:
    """The noisy results of a loop, with its clean iterations beside the noisy ones."""
    loop = equation.loop
    assert loop is not None
    feeds = {i: noise.feeds[i] for i in reached.sites_in(loop)}
    tidy = clean_operands(equation, clean)
    operands, tidy, feeds = _varying.together((operands, tidy, feeds))
    constants, carry, slices = loop.apart(operands)
    clean_constants, clean_carry, clean_slices = loop.apart(tidy)

    def step(carried, sliced):
        (clean_carry, carry), (clean_slices, slices, feeds) = carried, sliced
        tidy, noisy = _both(
            loop.body,
            reached,
            Noise({**noise.feeds, **feeds}, noise.at),
            [*clean_constants, *clean_carry, *clean_slices],
            [*constants, *carry, *slices],
        )
        count = loop.num_carry
        return (tidy[:count], noisy[:count]), noisy[count:]

    (_, final), results = jax.lax.scan(
        step,
        (clean_carry, carry),
        (clean_slices, slices, feeds),
        length=loop.length,
        reverse=loop.reverse,
    )
    return [*final, *results]


def _noisy_cond(
    equation: Equation,
    reached: Reached,
    noise: Noise,
    operands: list[Any],
    clean: Mapping[Variable, Any],
) -> list[Any]:
    index, *noisy = operands
    tidy = clean_operands(equation, clean)[1:]
    noisy, tidy = _varying.together((noisy, tidy))
    branches = [
        lambda tidy, noisy, body=body: _both(body, reached, noise, tidy, noisy)[1]
        for body in equation.bodies
    ]
    return jax.lax.switch(index, branches, tidy, noisy)


def _noisy_while(
    equation: Equation,
    reached: Reached,
    noise: Noise,
    operands: list[Any],
    clean: Mapping[Variable, Any],
) -> list[Any]:
    condition, body = equation.bodies
    start = equation.params["cond_nconsts"]
    end = start + equation.params["body_nconsts"]
    operands, tidy = _varying.together((operands, clean_operands(equation, clean)))

    def goes_on(carried):
        return run(condition, [*operands[:start], *carried[1]])[0]

    def step(carried):
        return _both(
            body,
            reached,
            noise,
            [*tidy[start:end], *carried[0]],
            [*operands[start:end], *carried[1]],
        )

    return jax.lax.while_loop(goes_on, step, (tidy[end:], operands[end:]))[1]
