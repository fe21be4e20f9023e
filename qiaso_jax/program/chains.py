"""The affine chains from parameters to sites, one equation after the other."""

from collections.abc import Iterator

from qiaso_jax.program.equations import Equation, Program, Variable
from qiaso_jax.program.sites import Site, Sites

Step = tuple[Equation, frozenset[int]]
"""An equation, and the positions of the operands that a chain goes through."""

_KINDS = {
    "dot_general": "product",
    "conv_general_dilated": "convolution",
    "gather": "embedding",
    "add": "bias",
    "add_any": "bias",
    "sub": "bias",
    "mul": "scaling",
    "div": "scaling",
}


def chain_to(program: Program, sites: Sites, site: Site) -> list[Step]:
    """The equations of the chain that ends in a site, those in loops included."""
    steps: list[Step] = []
    wanted = {site.variable}
    for equation, pairs in reversed(list(_steps(program, sites))):
        positions = frozenset(p for p, v in pairs if v in wanted)
        if positions:
            steps.append((equation, positions))
            wanted.update(
                a for p in positions if isinstance(a := equation.inputs[p], Variable)
            )
    return steps[::-1]


def _steps(
    program: Program, sites: Sites
) -> Iterator[tuple[Equation, list[tuple[int, Variable]]]]:
    """Carried operands by position, with the variable that each leads to."""
    for equation in program.equations:
        carried = sorted(sites.carried.get(equation, ()))
        if equation.loop is not None:
            yield equation, [(p, equation.loop.body.inputs[p]) for p in carried]
            yield from _steps(equation.loop.body, sites)
        elif carried:
            yield equation, [(p, v) for p in carried for v in equation.outputs]


def kind(program: Program, sites: Sites, site: Site, leaf: int) -> str:
    """How a parameter enters: the first operation that involves more than it."""
    reached = {program.inputs[leaf]}
    for equation, positions in chain_to(program, sites, site):
        through = [p for p in positions if equation.inputs[p] in reached]
        if not through:
            continue
        if equation.loop is not None:
            reached.update(equation.loop.body.inputs[p] for p in through)
            continue
        if equation.name in _KINDS:
            return _KINDS[equation.name]
        reached.update(equation.outputs)
    return "weights" if site.axis is None else "linear"


def data_of(program: Program, steps: list[Step]) -> list[Variable]:
    """The variables, in no loop, that a chain takes as they are."""
    found: dict[Variable, None] = {}
    outside = set(program.equations)
    for equation, positions in steps:
        if equation not in outside:
            continue
        for p, atom in enumerate(equation.inputs):
            if p not in positions and isinstance(atom, Variable):
                found[atom] = None
    return list(found)
