"""Where examples are: what is said of random programs, by changing one of them.

Programs are played by loops of Python here, iteration by iteration, so that nothing of
the analysis is used but its equations.
"""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qiaso_jax.program.axes import (
    LOSSES,
    ExampleAxis,
    Mixed,
    examples_of,
    joined,
    losses_reached,
)
from qiaso_jax.program.equations import Literal, bind
from qiaso_jax.program.flatten import flatten

B, F = 3, 2
STEPS = 4


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        yield


# Playing a program.


def play(program, args, move=lambda variable, value, at: value, at=()):
    """The results, where every value is moved, and all values by variable and place.

    ``at`` are the numbers of the iterations of the loops around.
    """
    env, seen = {}, {}

    def keep(variable, value):
        env[variable] = move(variable, value, at)
        seen[variable, at] = env[variable]

    def read(atom):
        return atom.val if isinstance(atom, Literal) else env[atom]

    for variable, value in [
        *program.constants.items(),
        *zip(program.inputs, args, strict=True),
    ]:
        keep(variable, value)
    for equation in program.equations:
        operands = list(map(read, equation.inputs))
        if equation.loop is None:
            outputs = bind(equation, operands)
        else:
            outputs, within = iterate(equation.loop, operands, move, at)
            seen |= within
        for variable, value in zip(equation.outputs, outputs, strict=True):
            keep(variable, value)
    return list(map(read, program.outputs)), seen


def iterate(loop, operands, move, at):
    constants, carry, stacked = loop.apart(operands)
    order, seen, results = range(loop.length), {}, {}
    for i in reversed(order) if loop.reverse else order:
        outputs, within = play(
            loop.body, [*constants, *carry, *[x[i] for x in stacked]], move, (*at, i)
        )
        carry, results[i] = outputs[: loop.num_carry], outputs[loop.num_carry :]
        seen |= within
    columns = zip(*(results[i] for i in order), strict=True)
    return [*carry, *map(jnp.stack, columns)], seen


def stacked(seen, variable):
    """The values in all iterations of the loops around, the outermost first."""
    places = sorted(at for v, at in seen if v is variable)
    lengths = [1 + max(axis) for axis in zip(*places, strict=True)]
    value = jnp.stack([seen[variable, at] for at in places])
    return value.reshape(*lengths, *value.shape[1:])


def owners(shape, where):
    """The example that each entry belongs to."""
    counts = np.arange(shape[where.axis]) // where.repeats % B
    return np.broadcast_to(
        counts.reshape(-1, *[1] * (len(shape) - where.axis - 1)), shape
    )


# Random programs. A state is an array and the axis that its maker thinks the examples
# are at, lest too few of the programs keep them apart; nothing is tested by it.


def other_axes(h, axis):
    return [i for i in range(h.ndim) if i != axis]


def draw_axis(draw, h):
    return draw(st.integers(0, h.ndim - 1))


def weights(*shape):
    return jnp.sin(1.0 + jnp.arange(float(np.prod(shape)))).reshape(shape)


def elementwise(draw, h, axis):
    kind = draw(st.sampled_from(["tanh", "square", "where", "shift", "jit", "norm"]))
    if kind == "norm":
        return h / (1 + jnp.abs(h)), axis
    if kind == "jit":
        return jax.jit(jnp.sin)(h) + h, axis
    if kind == "shift":
        return h + weights(*h.shape), axis
    if kind == "where":
        return jnp.where(h > 0, h, 0.3 * h), axis
    return getattr(jnp, kind)(h), axis


def transposed(draw, h, axis):
    order = draw(st.permutations(range(h.ndim)))
    return jnp.transpose(h, order), order.index(axis)


def merged(draw, h, axis):
    """Two axes into one, after which nobody knows."""
    i = draw(st.integers(0, max(h.ndim - 2, 0)))
    if h.ndim < 2:
        return h, axis
    shape = (*h.shape[:i], h.shape[i] * h.shape[i + 1], *h.shape[i + 2 :])
    h = jnp.tanh(h.reshape(shape))
    if axis in (i, i + 1):
        h = h * weights(*h.shape)
        return h.reshape(
            *shape[:i], *split_of(shape[i], i, axis), *shape[i + 1 :]
        ), axis
    return h, axis - (axis > i)


def split_of(length, i, axis):
    return (B, length // B) if axis == i else (length // B, B)


def split(draw, h, axis):
    i = draw_axis(draw, h)
    if i == axis or h.shape[i] % 2:
        return jnp.stack([h, -h], axis=i), axis + (i <= axis)
    shape = (*h.shape[:i], 2, h.shape[i] // 2, *h.shape[i + 1 :])
    return h.reshape(shape), axis + (i < axis)


def reduced(draw, h, axis):
    others = other_axes(h, axis)
    if not others:
        return h, axis
    i = draw(st.sampled_from(others))
    kind = draw(st.sampled_from(["sum", "max", "mean", "argmax"]))
    if kind == "argmax":
        return h * jnp.argmax(h, axis=i, keepdims=True), axis
    return getattr(jnp, kind)(h, axis=i), axis - (i < axis)


def multiplied(draw, h, axis):
    others = other_axes(h, axis)
    if not others:
        return jnp.outer(h, weights(F)), 0
    i = draw(st.sampled_from(others))
    h = jnp.moveaxis(h, i, -1) @ weights(h.shape[i], F)
    return h, axis - (i < axis)


def concatenated(draw, h, axis):
    others = other_axes(h, axis)
    i = draw_axis(draw, h) if draw(st.booleans()) or not others else others[0]
    both = jnp.concatenate([h, jnp.tanh(h)], axis=i)
    if i == axis:
        return both.take(jnp.arange(B), axis=i), axis
    return both, axis


def ordered(draw, h, axis):
    i = draw_axis(draw, h)
    kind = draw(st.sampled_from(["flip", "roll", "sort", "cumsum"]))
    if kind == "roll":
        return jnp.roll(h, 1, i) + h, axis
    return getattr(jnp, kind)(h, axis=i), axis


def taken(draw, h, axis):
    i = draw_axis(draw, h)
    kind = draw(st.sampled_from(["order", "argsort", "rows"]))
    if kind == "order":
        return jnp.take(h, np.arange(h.shape[i]), axis=i), axis
    if kind == "argsort":
        return jnp.take_along_axis(h, jnp.argsort(h, axis=i), axis=i), axis
    n = h.shape[axis]
    first = jnp.moveaxis(h, axis, 0).reshape(n, -1)
    which = jnp.argmax(first, axis=1)
    return h * jnp.expand_dims(
        first[jnp.arange(n), which], [j for j in range(h.ndim) if j != axis]
    ), axis


def scanned_over_time(draw, h, axis):
    """The same state again and again, or one axis as time."""
    reverse = draw(st.booleans())
    others = other_axes(h, axis)
    if draw(st.booleans()) or not others:

        def again(carry, factor):
            carry = jnp.sin(carry * factor + h)
            return carry, carry.sum() * 0 + carry

        final, history = jax.lax.scan(again, h, jnp.arange(2.0), reverse=reverse)
        return final + history[0], axis
    i = draw(st.sampled_from(others))
    slices = jnp.moveaxis(h, i, 0)

    def step(carry, row):
        carry = jnp.tanh(carry + row)
        return carry, carry * row

    final, history = jax.lax.scan(step, 0.5 * slices[0], slices, reverse=reverse)
    return jnp.moveaxis(history, 0, i) + jnp.expand_dims(final, i), axis


def scanned_over_examples(draw, h, axis):
    rows = jnp.moveaxis(h, axis, 0)
    if draw(st.booleans()):
        return jax.lax.map(lambda row: jnp.tanh(row) * jnp.sum(row), rows), 0
    # A loop within the loop, over what one example has.
    inner = rows.reshape(rows.shape[0], -1)

    def of_one(row):
        return jax.lax.scan(lambda c, x: (jnp.sin(c + x), c * x), row[0], row)[1]

    return jax.lax.map(of_one, inner), 0


def meeting(draw, h, axis):
    rows = jnp.moveaxis(h, axis, 0)
    if draw(st.booleans()):
        return rows - rows.mean(0), 0
    return jax.lax.scan(lambda c, row: (c + row, c), rows[0], rows)[1], 0


def branched(draw, h, axis):
    del draw
    return jax.lax.cond(STEPS > 3, lambda x: jnp.sin(x) + h, jnp.cos, h), axis


def looped(draw, h, axis):
    del draw
    return jax.lax.fori_loop(0, 2, lambda i, c: jnp.sin(c + i), h), axis


OPERATIONS = [
    elementwise,
    transposed,
    merged,
    split,
    reduced,
    multiplied,
    concatenated,
    ordered,
    taken,
    scanned_over_time,
    scanned_over_time,
    scanned_over_examples,
    scanned_over_examples,
    meeting,
    branched,
    looped,
]


class Choices:
    """What a strategy drew, again and again, as a function is traced more than once."""

    def __init__(self, data):
        self._data, self._made, self._next = data, [], 0

    def start(self):
        self._next = 0

    def draw(self, strategy):
        if self._next == len(self._made):
            self._made.append(self._data.draw(strategy))
        self._next += 1
        return self._made[self._next - 1]


def random_losses(data):
    choices = Choices(data)

    def losses(x):
        choices.start()
        h, axis = x, 0
        for _ in range(choices.draw(st.integers(2, 5))):
            operation = choices.draw(st.sampled_from(OPERATIONS))
            h, axis = operation(choices.draw, h, axis)
            if h.size > 600:
                break
        rows = jnp.moveaxis(h, axis, 0) if h.ndim else h[None]
        if rows.shape[0] != B:
            rows = jnp.ones(B)[:, None] * rows.reshape(1, -1)
        losses = rows.reshape(B, -1)
        return [jnp.sum(losses * weights(*losses.shape), axis=1)]

    return losses


def places_of(program, at=((),)):
    """In which iterations there are which variables, those in branches excepted."""
    found = dict.fromkeys([*program.inputs, *program.constants], at)
    for equation in program.equations:
        found |= dict.fromkeys(equation.outputs, at)
        if equation.loop is not None:
            steps = range(equation.loop.length)
            inner = tuple((*before, i) for before in at for i in steps)
            found |= places_of(equation.loop.body, inner)
    return found


def is_floating(variable):
    return jnp.issubdtype(variable.aval.dtype, jnp.floating)


def rng_of(number):
    return np.random.default_rng(number)


X = rng_of(0).normal(size=(B, 4, F))
COUNTS = collections.Counter()
RANDOM = settings(max_examples=15, deadline=None, derandomize=True, database=None)


@RANDOM
@given(st.data())
def check_reached(data):
    losses = random_losses(data)
    program = flatten(losses, X)
    reach = losses_reached(program, B, lambda equation: False)
    places = places_of(program)
    chosen = [
        (v, w)
        for v, w in reach.variables.items()
        if isinstance(w, ExampleAxis) and is_floating(v) and v in places
    ]
    COUNTS["apart"] += len(chosen)
    COUNTS["mixed"] += sum(isinstance(w, Mixed) for w in reach.variables.values())
    COUNTS["in loops"] += sum(places[v] != ((),) for v, _ in chosen)
    # One run per variable and example, all others of its noise being silent.
    runs, noises = len(chosen) * B, {}
    for which, (variable, where) in enumerate(chosen):
        lengths = [1 + max(axis) for axis in zip(*places[variable], strict=True)]
        shape = (*lengths, *variable.aval.shape)
        noise = np.zeros((runs, *shape))
        for n in range(B):
            mine = owners(shape, where) == n
            noise[which * B + n] = rng_of(which).normal(size=shape) * mine
        noises[which] = jnp.asarray(noise)
    order = {variable: which for which, (variable, _) in enumerate(chosen)}

    def moved(noises):
        def move(variable, value, at):
            return value + noises[order[variable]][at] if variable in order else value

        return play(program, [jnp.asarray(X)], move)[0][0]

    clean = losses(jnp.asarray(X))[0]
    found = jax.jit(jax.vmap(moved))(noises).reshape(-1, B, B)
    for (variable, where), one in zip(chosen, found, strict=True):
        changed = differs(one, clean[None])
        COUNTS["changes"] += changed.sum()
        assert not np.any(changed & ~np.eye(B, dtype=bool)), (variable, where)


@pytest.mark.slow
def test_noise_in_one_example_reaches_its_own_loss_only():
    COUNTS.clear()
    check_reached()
    # The test can fail: much is said, and heard.
    assert COUNTS["apart"] > 100, COUNTS
    assert COUNTS["in loops"] > 20, COUNTS
    assert COUNTS["mixed"] > 50, COUNTS
    assert COUNTS["changes"] > COUNTS["apart"], COUNTS


@RANDOM
@given(st.data())
def check_origin(data):
    losses = random_losses(data)
    program = flatten(losses, X)
    statuses = examples_of(program, [LOSSES], B, hold=False).statuses
    places = places_of(program)
    other = jnp.asarray(rng_of(1).normal(size=X.shape))
    batches = jnp.stack(
        [jnp.where(np.arange(B)[:, None, None] == n, other, X) for n in range(B)]
    )

    @jax.jit
    def values(x):
        _, seen = play(program, [x])
        return [stacked(seen, v) for v in places]

    before, after = values(jnp.asarray(X)), jax.vmap(values)(batches)
    for variable, clean, found in zip(places, before, after, strict=True):
        where = statuses.get(variable)
        changed = differs(found, clean[None])
        COUNTS[type(where).__name__] += 1
        COUNTS["changes"] += changed.any()
        if where is None:
            assert not np.any(changed), variable
        elif isinstance(where, ExampleAxis):
            mine = owners(clean.shape, where)
            for n in range(B):
                assert not np.any(changed[n] & (mine != n)), (variable, where)


def differs(a, b):
    if np.asarray(a).dtype.kind == "f":
        return ~np.isclose(a, b, 1e-9, 1e-9)
    return np.asarray(a) != np.asarray(b)


@pytest.mark.slow
def test_an_example_changes_its_own_entries_only():
    COUNTS.clear()
    check_origin()
    assert COUNTS["ExampleAxis"] > 150, COUNTS
    assert COUNTS["Mixed"] > 50, COUNTS
    assert COUNTS["changes"] > 200, COUNTS


# Single functions.


def status_of(losses, x=None, hold=False):
    """Of the losses, by the way forwards, and of x, by the way back."""
    x = np.ones((B, 4)) if x is None else x
    program = flatten(lambda x: [losses(x)], jnp.asarray(x))
    origin = examples_of(program, [LOSSES], B, hold)
    reach = losses_reached(program, B, lambda e: e in origin.statistics)
    return origin.statuses.get(program.outputs[0]), reach.variables[program.inputs[0]]


def summed(h):
    return h.reshape(B, -1).sum(1)


def vmapped(f):
    return lambda x: jax.vmap(f)(x)


APART = {
    "merged and split again": lambda x: summed((x.reshape(-1, 2) ** 2).reshape(-1, 4)),
    "repeated": lambda x: summed(jnp.sin(jnp.repeat(x, 2, 0)).reshape(B, -1)),
    "tokens first": lambda x: (x.T.reshape(4, B) ** 2).sum(0),
    "two by two": lambda x: summed(jnp.tanh(x.reshape(B * 2, 2) @ np.ones((2, 2)))),
    "indexed": lambda x: x[jnp.arange(B), jnp.argmax(x, 1)],
    "taken along": lambda x: jnp.take_along_axis(x, x.argmax(1)[:, None], 1)[:, 0],
    "one hot": lambda x: jnp.sum(jax.nn.one_hot(x.argmax(1), 4) * x, axis=1),
    "sorted features": lambda x: jnp.sort(x, axis=1)[:, 0],
    "top k": lambda x: jax.lax.top_k(x, 2)[0].sum(1),
    "scan over features": lambda x: jax.lax.scan(
        lambda c, col: (jnp.tanh(c + col), None), jnp.zeros(B), x.T
    )[0],
    "scan of a list": lambda x: jax.lax.scan(
        lambda c, _: (jnp.sin(c), None), x, length=5
    )[0].sum(1),
    "mapped": lambda x: jax.lax.map(lambda row: jnp.sum(row**2), x),
    "mapped, with a loop within": lambda x: jax.lax.map(
        lambda row: jax.lax.scan(lambda c, v: (jnp.sin(c + v), c), 0.0, row)[0], x
    ),
    "loop": lambda x: jax.lax.fori_loop(0, 3, lambda i, c: jnp.sin(c), x).sum(1),
    "while": lambda x: jax.lax.while_loop(
        lambda c: c[0] < 3, lambda c: (c[0] + 1, jnp.sin(c[1])), (0, x)
    )[1].sum(1),
    "batched solve": vmapped(lambda row: jnp.linalg.cholesky(jnp.eye(4) + row)[0, 0]),
    "vmapped cond": vmapped(
        lambda row: jax.lax.cond(row[0] > 0, jnp.sum, lambda r: r[1], row)
    ),
    "update of columns": lambda x: x.at[:, 1].set(0.0).sum(1),
    "windows": lambda x: jax.lax.reduce_window(
        x, 0.0, jax.lax.add, (1, 2), (1, 1), "SAME"
    ).sum(1),
    "scattered by row": lambda x: (
        jnp.zeros((B, 5)).at[jnp.arange(B), x.argmax(1)].add(x[:, 0]).max(1)
    ),
    "a key of its own": lambda x: jax.vmap(
        lambda i, row: (
            jax.random.normal(jax.random.fold_in(jax.random.key(0), i)) * row[0]
        )
    )(jnp.arange(B), x),
}

MEETING = {
    "reversed": lambda x: summed(x[::-1]),
    "sorted": lambda x: summed(jnp.sort(x, axis=0)),
    "rolled": lambda x: summed(jnp.roll(x, 1, 0)),
    "gathered": lambda x: summed(x[jnp.array([1, 0, 2])]),
    "gathered by value": lambda x: summed(x[jnp.argsort(x[:, 0])]),
    "one of them": lambda x: x[:, 0] * x[0, 1],
    "centred": lambda x: summed(x - x.mean(0)),
    "running sum": lambda x: summed(jnp.cumsum(x, axis=0)),
    "scanned": lambda x: jax.lax.scan(lambda c, row: (c + row, c), jnp.zeros(4), x)[
        1
    ].sum(1),
    "gram": lambda x: summed(x @ x.T),
    "misread": lambda x: summed(x.T.reshape(B, 4)),
    "transposed at last": lambda x: jnp.tanh(x[:, :B]).sum(0),
    "shifted by one": lambda x: summed(jnp.concatenate([x[1:], x[:1]])),
    "scattered": lambda x: jnp.zeros(B).at[x.argmax(1) % B].add(x[:, 0]),
    "while they last": lambda x: jax.lax.while_loop(
        lambda c: c.sum() < 9, lambda c: c + 1, x
    ).sum(1),
    "branched on all": lambda x: jax.lax.cond(
        x.sum() > 0, lambda h: h.sum(1), lambda h: h[:, 0], x
    ),
    "convolved": lambda x: jnp.convolve(x[:, 0], np.ones(3), "same"),
    "counted twice": lambda x: summed(jnp.tile(x, (2, 1))[1 : B + 1]),
    "fourier": lambda x: jnp.abs(jnp.fft.fft(x, axis=0)).sum(1),
}


@pytest.mark.parametrize("name", APART)
def test_examples_that_are_apart_are_seen_to_be(name):
    assert status_of(APART[name]) == (LOSSES, ExampleAxis(0, 1))


@pytest.mark.parametrize("name", MEETING)
def test_examples_that_meet_are_seen_to(name):
    forwards, backwards = status_of(MEETING[name])
    assert isinstance(forwards, Mixed)
    assert isinstance(backwards, Mixed)


def test_what_mixes_is_named():
    forwards, backwards = status_of(MEETING["sorted"])
    assert forwards.equation.name == "sort"
    assert backwards.equation.name == "sort"
    assert forwards.equation.source.startswith("test_axes.py:")


def test_an_example_per_iteration_is_carried_to_others():
    forwards, backwards = status_of(MEETING["scanned"])
    assert forwards.equation.name == "scan"
    assert backwards.equation.name == "scan"


def test_rows_that_meet_and_a_penalty_that_all_share():
    program = flatten(
        lambda x, w: [jnp.sum(x * w, axis=1) + jnp.sum(w**2)],
        np.ones((B, 4)),
        np.ones(4),
    )
    reach = losses_reached(program, B, lambda equation: False)
    x, w = program.inputs
    assert reach.variables[x] == ExampleAxis(0, 1)
    assert isinstance(reach.variables[w], Mixed)


def test_statistics_that_are_held_keep_examples_apart():
    def normalised(x):
        return summed((x - x.mean(0)) / jnp.sqrt(x.var(0) + 1))

    assert isinstance(status_of(normalised)[0], Mixed)
    assert status_of(normalised, hold=True) == (LOSSES, ExampleAxis(0, 1))
    # What is no statistic is not held.
    assert isinstance(status_of(MEETING["reversed"], hold=True)[0], Mixed)
    assert isinstance(status_of(MEETING["running sum"], hold=True)[0], Mixed)


def test_what_is_cut_is_not_heard():
    program = flatten(
        lambda x: [summed(x - jax.lax.stop_gradient(x[::-1]))], np.ones((B, 4))
    )
    (x,) = program.inputs

    def reach(cut):
        return losses_reached(program, B, cut).variables[x]

    assert isinstance(reach(lambda e: False), Mixed)
    assert reach(lambda e: e.name == "stop_gradient") == ExampleAxis(0, 1)
    assert reach(lambda e: True) is None


def test_examples_are_followed_through_merged_axes():
    x = jnp.zeros((3, 8))
    program = flatten(
        lambda x: [x.reshape(-1, 2).sum(1).reshape(-1, 4).sum(1) + 1.0], x
    )
    statuses = examples_of(program, [LOSSES], 3, hold=False).statuses
    assert {where.repeats for where in statuses.values()} == {1, 4}
    assert statuses[program.outputs[0]] == LOSSES


def test_examples_that_start_over_again():
    program = flatten(lambda x: [x.T.reshape(-1)], jnp.zeros((3, 8)))
    statuses = examples_of(program, [LOSSES], 3, hold=False).statuses
    where = statuses[program.outputs[0]]
    assert where == ExampleAxis(0, 1)
    np.testing.assert_array_equal(owners((24,), where), np.arange(24) % 3)


@pytest.mark.parametrize("shape", [(B, 0), (0,), (B * 0, 4)])
def test_empty_arrays_have_no_examples_to_mix(shape):
    def losses(x):
        return [x.sum(1) + x[:, :0].reshape(shape).sum()]

    program = flatten(losses, jnp.ones((B, 4)))
    examples_of(program, [LOSSES], B, hold=False)
    losses_reached(program, B, lambda equation: False)


def test_joined():
    where, mixed = ExampleAxis(1, 2), Mixed(None)
    assert joined([], None) is None
    assert joined([None, where, None, where], None) == where
    assert joined([where, mixed], None) is mixed
    assert joined([where, LOSSES], None) == mixed
