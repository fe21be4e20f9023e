"""What the registry says of each primitive, by brute force on small arrays.

A function is evaluated on two sets of arguments. What comes of an operand that takes
its entries at one place from the second set, and all others from the first, shows what
these entries reach.
"""

import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from qiaso_jax.program import compat, primitives
from qiaso_jax.program.equations import Variable, bind, evaluate
from qiaso_jax.program.flatten import flatten
from qiaso_jax.program.primitives import RULES, rule

RECENT = {"log2", "mulhi", "one_minus_square", "polynomial", "stack", "unstack"}
"""Primitives that came after JAX 0.10.0."""

NOT_BUILT = {
    "reshape": "it has no rule of axes: test_axes.py is about it",
}


def bound(name, **params):
    """A primitive that no public function is made of alone."""
    return lambda *args: compat.primitive(name).bind(*args, **params)


# Arguments, by a generator of random numbers. Numbers between 0 and 1, lest functions
# leave where they are defined, and axes of different lengths.


def floats(*shape):
    return lambda rng: rng.uniform(0.1, 0.9, shape)


def signed(*shape):
    return lambda rng: rng.normal(size=shape)


def integers(*shape, high=100, dtype=np.int32):
    return lambda rng: rng.integers(0, high, shape).astype(dtype)


def booleans(*shape):
    return lambda rng: rng.uniform(size=shape) > 0.5


def complexes(*shape):
    return lambda rng: rng.normal(size=shape) + 1j * rng.normal(size=shape)


def keys(*shape):
    return lambda rng: jax.random.wrap_key_data(
        jnp.asarray(rng.integers(0, 2**32, (*shape, 2)), jnp.uint32)
    )


def positive(*shape):
    """Symmetric positive definite matrices."""

    def make(rng):
        a = rng.normal(size=shape)
        return a @ np.swapaxes(a, -1, -2) + np.eye(shape[-1])

    return make


def symmetric(*shape):
    def make(rng):
        a = rng.normal(size=shape)
        return a + np.swapaxes(a, -1, -2)

    return make


PAIR = floats(2, 3), floats(2, 3)
COUNTS = integers(2, 3), integers(2, 3)
UNARY = (
    "abs acos asin asinh atan atanh bessel_i0e bessel_i1e cbrt cos cosh digamma "
    "erf erf_inv erfc exp exp2 expm1 is_finite lgamma log log1p log2 logistic neg "
    "rsqrt sin sinh sqrt square tan tanh stop_gradient"
)
BINARY = "add sub mul div max min pow atan2 nextafter rem lt le gt ge"


def over(function, *args, **params):
    return lambda *operands: function(*operands, *args, **params)


def mapped(function):
    return jax.vmap(function)


def constrained(x):
    mesh = Mesh(np.array(jax.devices()[:1]), ("all",))
    return lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec("all")))


def window(padding, function=lax.add, initial=0.0, dims=(1, 2, 1, 1), **more):
    return over(
        lax.reduce_window, initial, function, dims, (1,) * len(dims), padding, **more
    )


def rows_of_each(x, y):
    return x[jnp.arange(4)[:, None], y]


EVERY_WINDOW = ((0, 0), (1, 0), (0, 0), (0, 0))

EXAMPLES = [
    *(
        (n, (over(getattr(lax, n)), floats(2, 3)))
        for n in UNARY.split()
        if hasattr(lax, n)
    ),
    *((n, (getattr(lax, n), *PAIR)) for n in BINARY.split()),
    *((n, (getattr(lax, n), signed(2, 3))) for n in ("ceil", "floor", "round", "sign")),
    ("acosh", (lambda x: lax.acosh(x + 1), floats(2, 3))),
    ("add_any", (bound("add_jaxvals"), *PAIR)),
    ("and", (lax.bitwise_and, *COUNTS)),
    ("approx_top_k", (over(lax.approx_max_k, 2, 1), floats(3, 4, 2))),
    ("approx_top_k", (over(lax.approx_max_k, 2), floats(3, 4, 5))),
    ("argmax", (over(lax.argmax, 1, np.int32), floats(2, 3, 4))),
    ("argmin", (over(lax.argmin, 0, np.int32), floats(2, 3, 4))),
    ("broadcast_in_dim", (over(lax.broadcast_in_dim, (4, 2, 3), (1, 2)), signed(2, 3))),
    ("broadcast_in_dim", (over(lax.broadcast_in_dim, (4, 5, 3), (0, 2)), signed(4, 3))),
    ("broadcast_in_dim", (over(lax.broadcast_in_dim, (4, 3), (0, 1)), signed(1, 3))),
    ("cholesky", (lax.linalg.cholesky, positive(4, 3, 3))),
    ("cholesky", (lax.linalg.cholesky, positive(4, 2, 3, 3))),
    ("clamp", (lax.clamp, floats(2, 3), floats(2, 3), floats(2, 3))),
    ("clamp", (lambda x: lax.clamp(0.3, x, 0.6), floats(2, 3))),
    ("clz", (lax.clz, integers(2, 3))),
    ("complex", (lax.complex, *PAIR)),
    ("concatenate", (lambda *x: lax.concatenate(x, 1), signed(2, 3), signed(2, 4))),
    ("concatenate", (lambda *x: lax.concatenate(x, 0), signed(2, 3), signed(4, 3))),
    ("conj", (lax.conj, complexes(2, 3))),
    (
        "conv_general_dilated",
        (over(lax.conv, (1, 1), "SAME"), signed(4, 2, 3, 5), signed(3, 2, 2, 2)),
    ),
    (
        "conv_general_dilated",
        (
            lambda x, w: lax.conv_general_dilated(
                x, w, (2,), [(1, 0)], (1,), (2,), ("WNC", "WIO", "NCW")
            ),
            signed(5, 3, 2),
            signed(2, 2, 4),
        ),
    ),
    (
        "conv_general_dilated",
        (
            over(lax.conv_general_dilated, (1,), "SAME", feature_group_count=2),
            signed(3, 2, 5),
            signed(4, 1, 2),
        ),
    ),
    (
        "conv_general_dilated",
        (
            over(lax.conv_general_dilated, (1,), "SAME", batch_group_count=2),
            signed(4, 3, 5),
            signed(6, 3, 2),
        ),
    ),
    ("convert_element_type", (lambda x: x.astype(jnp.float32), signed(2, 3))),
    ("convert_element_type", (lambda x: (9 * x).astype(int), signed(2, 3))),
    ("copy", (bound("copy"), signed(2, 3))),
    *(
        (n, (over(getattr(lax, n), axis), floats(3, 4, 2)))
        for n in ("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")
        for axis in (0, 1)
    ),
    ("cumsum", (over(lax.cumsum, 1, reverse=True), floats(3, 4))),
    ("device_put", (jax.device_put, signed(2, 3))),
    ("device_put", (lambda *x: jax.device_put(x), signed(2, 3), signed(3))),
    ("dot_general", (lambda x, y: x @ y, signed(2, 3), signed(3, 4))),
    ("dot_general", (lambda x, y: x.T @ y, signed(3, 2), signed(3, 4))),
    ("dot_general", (lambda x, y: x @ y, signed(3), signed(3))),
    (
        "dot_general",
        (
            lambda x, y: jnp.einsum("abcd,dbe->bcae", x, y),
            signed(2, 3, 4, 5),
            signed(5, 3, 2),
        ),
    ),
    (
        "dot_general",
        (
            over(lax.dot_general, (((1, 3), (2, 0)), ((2, 0), (1, 3)))),
            signed(2, 3, 4, 5),
            signed(5, 4, 3, 2),
        ),
    ),
    ("dynamic_slice", (over(lax.dynamic_slice, (1, 2), (2, 3)), signed(4, 5))),
    ("dynamic_slice", (over(lax.dynamic_slice, (1, 2), (2, 5)), signed(4, 5))),
    (
        "dynamic_slice",
        (
            lambda x, i: lax.dynamic_slice(x, (i, i), (4, 3)),
            signed(4, 5),
            integers(high=3),
        ),
    ),
    (
        "dynamic_update_slice",
        (
            lambda x, y, i: lax.dynamic_update_slice(x, y, (i, i)),
            signed(4, 5),
            signed(2, 5),
            integers(high=3),
        ),
    ),
    ("eig", (lax.linalg.eig, signed(4, 2, 2))),
    ("eigh", (lax.linalg.eigh, symmetric(4, 3, 3))),
    ("eq", (lax.eq, *[integers(2, 3, high=2)] * 2)),
    ("eq_to", (bound("eq_to"), *[lambda rng: rng.integers(0, 2, (2, 3)) / 2] * 2)),
    *((n, (bound(n), *PAIR)) for n in ("le_to", "lt_to")),
    ("fft", (over(lax.fft, "fft", (5,)), complexes(2, 3, 5))),
    ("fft", (over(lax.fft, "rfft", (4, 5)), signed(3, 4, 5))),
    # By slices: whole, starting where an index says, of one row each.
    ("gather", (lambda x, i: x[i], signed(5, 3), integers(4, 2, high=5))),
    ("gather", (lambda x, i: x[:, i], signed(5, 3, 4), integers(2, high=3))),
    ("gather", (lambda x, i, j: x[i, j], signed(5, 4), *[integers(3, high=4)] * 2)),
    # By positions that are known.
    ("gather", (lambda x, y: x[jnp.arange(4), y], signed(4, 5), integers(4, high=5))),
    ("gather", (lambda x, y: x[y, jnp.arange(4)], signed(5, 4), integers(4, high=5))),
    ("gather", (rows_of_each, signed(4, 5), integers(4, 3, high=5))),
    ("gather", (rows_of_each, signed(4, 5, 2), integers(4, 3, high=5))),
    ("gather", (lambda x: x[jnp.arange(4)], signed(4, 5))),
    ("gather", (lambda x: x[jnp.arange(4)[::-1]], signed(4, 5))),
    ("gather", (lambda x: x[jnp.arange(4) * 0 + 2], signed(4, 5))),
    (
        "gather",
        (
            lambda x, y: x[jnp.arange(4)[:, None], jnp.arange(3)[None], y],
            signed(4, 3, 5),
            integers(4, 3, high=5),
        ),
    ),
    # By axes that are looked up alike.
    (
        "gather",
        (over(jnp.take_along_axis, 1), signed(4, 5), integers(4, 3, high=5)),
    ),
    (
        "gather",
        (mapped(lambda x, i: x[i]), signed(4, 5, 2), integers(4, 3, high=5)),
    ),
    ("hessenberg", (lax.linalg.hessenberg, signed(2, 3, 3))),
    (
        "householder_product",
        (lax.linalg.householder_product, signed(2, 4, 3), floats(2, 3)),
    ),
    (
        "householder_product",
        (lax.linalg.householder_product, signed(2, 5, 4, 3), floats(2, 5, 3)),
    ),
    ("igamma", (lax.igamma, *PAIR)),
    ("igamma_grad_a", (lax.igamma_grad_a, *PAIR)),
    ("igammac", (lax.igammac, *PAIR)),
    ("imag", (lax.imag, complexes(2, 3))),
    ("integer_pow", (over(lax.integer_pow, 3), signed(2, 3))),
    ("lu", (lax.linalg.lu, signed(4, 2, 3))),
    ("ne", (lax.ne, *[integers(2, 3, high=2)] * 2)),
    ("mul", (lambda x: 2.0 * x, signed(2, 3))),
    ("mulhi", (over(bound("mulhi")), *[integers(2, 3, high=2**31 - 1)] * 2)),
    ("not", (lax.bitwise_not, integers(2, 3))),
    ("one_minus_square", (over(bound("one_minus_square")), floats(2, 3))),
    ("or", (lax.bitwise_or, *COUNTS)),
    ("pad", (over(lax.pad, ((0, 0, 0), (1, 2, 0))), signed(2, 3), signed())),
    ("pad", (over(lax.pad, ((0, 0, 1), (0, 0, 0))), signed(3, 2), signed())),
    ("pad", (over(lax.pad, ((-1, 1, 0), (0, 0, 0))), signed(3, 2), signed())),
    ("polygamma", (lambda x: lax.polygamma(jnp.ones_like(x), x), floats(2, 3))),
    ("polynomial", (over(bound("polynomial")), *[floats(2, 3)] * 3)),
    ("population_count", (lax.population_count, integers(2, 3))),
    ("qr", (lax.linalg.qr, signed(2, 4, 3))),
    ("random_bits", (mapped(lambda k: jax.random.bits(k, (4, 2))), keys(3))),
    ("random_fold_in", (mapped(jax.random.fold_in), keys(3), integers(3))),
    ("random_gamma", (mapped(jax.random.gamma), keys(2), floats(2))),
    ("random_seed", (mapped(jax.random.key), integers(3))),
    ("random_split", (mapped(jax.random.split), keys(3))),
    ("random_unwrap", (jax.random.key_data, keys(3))),
    ("random_unwrap", (jax.random.key_data, keys(3, 4))),
    (
        "random_wrap",
        (jax.random.wrap_key_data, integers(3, 2, dtype=np.uint32)),
    ),
    ("real", (lax.real, complexes(2, 3))),
    *(
        (f"reduce_{n}", (over(bound(f"reduce_{n}", axes=(0, 2))), make(2, 3, 4)))
        for n, make in (("and", booleans), ("or", booleans), ("xor", integers))
    ),
    *(
        (f"reduce_{n}", (over(getattr(jnp, n), axis=axes), signed(2, 3, 4)))
        for n in ("max", "min", "prod", "sum")
        for axes in (1, (0, 2))
    ),
    ("reduce_precision", (over(lax.reduce_precision, 8, 4), signed(2, 3))),
    ("reduce_window_sum", (window(EVERY_WINDOW), signed(2, 3, 4, 5))),
    (
        "reduce_window_sum",
        (
            window("VALID", dims=(2, 1, 1), base_dilation=(1, 2, 1)),
            signed(3, 4, 2),
        ),
    ),
    (
        "reduce_window_max",
        (window("SAME", lax.max, -jnp.inf, (1, 1, 3)), signed(2, 3, 4)),
    ),
    (
        "reduce_window_max",
        (
            over(lax.reduce_window, -jnp.inf, lax.max, (1, 1), (1, 2), "VALID"),
            signed(2, 3),
        ),
    ),
    ("reduce_window_min", (window("SAME", lax.min, jnp.inf, (2, 1)), signed(4, 3))),
    (
        "reduce_window",
        (window("SAME", lambda a, b: a * b, 1.0, (1, 2, 1)), signed(2, 3, 4)),
    ),
    ("regularized_incomplete_beta", (lax.betainc, *[floats(2, 3)] * 3)),
    ("rev", (over(lax.rev, (1,)), signed(2, 3, 4))),
    (
        "scatter",
        (lambda x, y, i: x.at[i].set(y), signed(5, 3), signed(3), integers(high=5)),
    ),
    ("scatter", (lambda x, y: x.at[jnp.arange(4), 1].set(y), signed(4, 5), signed(4))),
    *(
        (
            f"scatter-{n}",
            (
                lambda x, y, i, n=n: getattr(x.at[i], n)(y),
                floats(5, 3),
                floats(4, 3),
                integers(4, high=5),
            ),
        )
        for n in ("add", "mul", "min", "max")
    ),
    (
        "scatter-sub",
        (
            lambda x, y, i: x.at[i].subtract(y),
            floats(5, 3),
            floats(4, 3),
            integers(4, high=5),
        ),
    ),
    (
        "scatter-add",
        (
            lambda x, y, i: x.at[jnp.arange(4), i].add(y),
            signed(4, 5, 3),
            signed(4, 3),
            integers(4, high=5),
        ),
    ),
    (
        "scatter-add",
        (
            lambda x, y, i: x.at[i, jnp.arange(4)].add(y),
            signed(5, 4),
            signed(4),
            integers(4, high=5),
        ),
    ),
    (
        "scatter-add",
        (
            mapped(lambda x, y, i: x.at[i].add(y)),
            signed(4, 5, 2),
            signed(4, 3, 2),
            integers(4, 3, high=5),
        ),
    ),
    (
        "scatter-add",
        (
            lambda x, y, i: x.at[:, i].add(y),
            signed(4, 5, 2),
            signed(4, 3, 2),
            integers(3, high=5),
        ),
    ),
    ("schur", (lax.linalg.schur, signed(4, 3, 3))),
    ("select_n", (lax.select_n, booleans(2, 3), signed(2, 3), signed(2, 3))),
    ("select_n", (lax.select_n, booleans(), signed(2, 3), signed(2, 3))),
    ("select_n", (lax.select_n, integers(2, 3, high=3), *[signed(2, 3)] * 3)),
    ("sharding_constraint", (constrained, signed(2, 3))),
    *(
        (n, (getattr(lax, n), integers(2, 3), integers(2, 3, high=5)))
        for n in ("shift_left", "shift_right_arithmetic", "shift_right_logical")
    ),
    ("slice", (lambda x: x[1:3], signed(4, 3))),
    ("slice", (lambda x: lax.slice(x, (0, 1), (5, 3), (2, 1)), signed(5, 3))),
    ("slice", (lambda x: lax.slice(x, (0, 0), (1, 2), (2, 1)), signed(1, 3))),
    ("sort", (over(lax.sort, dimension=0), signed(4, 3, 2))),
    ("sort", (lambda *x: lax.sort(x, 1, num_keys=1), *[signed(3, 4, 2)] * 2)),
    ("split", (over(lax.split, (1, 3), axis=1), signed(3, 4))),
    ("squeeze", (over(lax.squeeze, (1,)), signed(2, 1, 3))),
    (
        "stack",
        (lambda *x: compat.primitive("stack").bind(*x, axis=1), *[signed(2, 3)] * 2),
    ),
    (
        "stack",
        (lambda *x: compat.primitive("stack").bind(*x, axis=2), *[signed(2, 3)] * 4),
    ),
    ("svd", (over(lax.linalg.svd, full_matrices=False), signed(2, 4, 3))),
    ("threefry2x32", (bound("threefry2x32"), *[integers(2, 3, dtype=np.uint32)] * 4)),
    ("tile", (bound("tile", reps=(2, 1, 3)), signed(2, 3, 4))),
    ("top_k", (over(lax.top_k, 2), signed(2, 3, 4))),
    ("transpose", (over(lax.transpose, (2, 0, 1)), signed(2, 3, 4))),
    (
        "triangular_solve",
        (
            lambda a, b: lax.linalg.triangular_solve(a, b, left_side=True),
            positive(4, 3, 3),
            signed(4, 3, 2),
        ),
    ),
    ("tridiagonal", (lax.linalg.tridiagonal, symmetric(4, 3, 3))),
    (
        "tridiagonal_solve",
        (
            lambda d, b: lax.linalg.tridiagonal_solve(0.1 * d, 2 + d, 0.2 * d, b),
            floats(2, 4),
            signed(2, 4, 3),
        ),
    ),
    ("unstack", (bound("unstack", axis=1), signed(2, 3, 4))),
    ("xor", (lax.bitwise_xor, *COUNTS)),
    ("zeta", (lambda x, y: lax.zeta(1 + x, y), *PAIR)),
]  # fmt: skip


CONSERVATIVE = {
    "conv_general_dilated": "features within groups, and kernels of groups",
    "householder_product": "the factors have an axis less than the matrices",
    "triangular_solve": "columns of the right side, and of the matrices",
    "tridiagonal_solve": "the diagonals have an axis less than the right sides",
    "tile": "repeated entries start over again",
}
"""Where more stays apart than is said, which costs a parameter its space at most."""


@functools.cache
def built(example):
    """The equation of an example, and two values of each of its operands."""
    name, (function, *arguments) = example
    rngs = np.random.default_rng(0), np.random.default_rng(1)
    args = [[jnp.asarray(make(rng)) for make in arguments] for rng in rngs]
    program = flatten(lambda *a: jax.tree.leaves(function(*a)), *args[0])
    (equation,) = [e for e in program.equations if e.name == name][-1:]
    values = [evaluate(program, a) for a in args]
    return equation, *(list(map(v.read, equation.inputs)) for v in values)


def arrays(values):
    """As arrays of NumPy; keys as the numbers they are made of, as one entry each."""
    found = []
    for value in values:
        value = jnp.asarray(value)
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            words = np.asarray(jax.random.key_data(value)).astype(np.uint64)
            value = (words[..., 0] << np.uint64(32)) | words[..., 1]
        found.append(np.asarray(value))
    return found


def changes(equation, operands, before, position, where, other):
    """Where the results differ if the operand is another one at ``where``."""
    mixed = list(operands)
    mixed[position] = jnp.where(jnp.asarray(where), other[position], operands[position])
    after = arrays(bind(equation, mixed))
    return list(map(differ, after, before))


def differ(a, b):
    """Where two arrays differ by more than rounding, or than steps until all end."""
    if a.dtype.kind in "fc":
        return ~np.isclose(a, b, 1e-9, 1e-12, equal_nan=True)
    return a != b


def at(shape, axis, index):
    """A mask of the entries at one index along an axis."""
    counts = np.arange(shape[axis]).reshape(-1, *[1] * (len(shape) - axis - 1))
    return np.broadcast_to(counts == index, shape)


def moves_with(found, axis, length):
    """Whether each change, by index, is at that index along an axis of all results."""
    return all(
        not np.any(change & ~at(change.shape, axis, index))
        if axis < change.ndim and change.shape[axis] == length
        else not np.any(change)
        for index, changed in enumerate(found)
        for change in changed
    )


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        yield


def cases(keep=lambda known: True):
    found = [
        e for e in EXAMPLES
        if e[0] not in RECENT or compat.primitive(e[0]) is not None
    ]  # fmt: skip
    known = {p.name: r for p, r in RULES.items()}
    found = [e for e in found if keep(known[e[0]])]
    return pytest.mark.parametrize(
        "example", found, ids=[f"{n}-{i}" for i, (n, _) in enumerate(found)]
    )


def test_every_rule_has_an_example():
    names = {p.name for p in RULES}
    built = {name for name, _ in EXAMPLES}
    assert names - built == NOT_BUILT.keys()
    assert built - names <= RECENT


def test_every_name_is_one_that_jax_has():
    source = Path(primitives.__file__).read_text()
    calls = re.findall(r'_entries\(\s*((?:"[^"]*"\s*)+),', source)
    names = {n for call in calls for n in re.sub(r'"', "", call).split()}
    assert len(names) > 150
    assert len(names) >= len(RULES)
    missing = {name for name in names if compat.primitive(name) is None}
    assert missing <= RECENT
    # Nothing is entered twice, the later entry in the place of the first.
    listed = [n for call in calls for n in re.sub(r'"', "", call).split()]
    assert len(listed) == len(set(listed))


@pytest.mark.slow
@cases(lambda known: known.axes is not None)
def test_axes_go_where_the_rule_says(example):
    equation, operands, other = built(example)
    before = arrays(bind(equation, operands))
    axes = rule(equation).axes(equation)
    assert len(axes) == len(operands)
    for position, places in enumerate(axes):
        shape = jnp.shape(operands[position])
        # Literals, and operands that do not depend on the arguments, cannot differ.
        assert len(places) == len(shape)
        for axis, place in enumerate(places):
            found = [
                changes(equation, operands, before, position, at(shape, axis, i), other)
                for i in range(shape[axis])
            ]
            if place is not None:
                if before[0].shape[place] == shape[axis]:
                    assert moves_with(found, place, shape[axis])
                continue
            if example[0] in CONSERVATIVE or not np.any(
                [c.any() for f in found for c in f]
            ):
                continue
            # Nothing stays apart that the rule has lost.
            assert not any(
                moves_with(found, j, shape[axis])
                for j, length in enumerate(before[0].shape)
                if length == shape[axis] > 1
            )


@pytest.mark.slow
@cases(lambda known: known.elementwise)
def test_entries_of_elementwise_ones_depend_on_those_at_their_place(example):
    equation, operands, other = built(example)
    before = arrays(bind(equation, operands))
    changed = False
    for position, operand in enumerate(operands):
        shape = jnp.shape(operand)
        for index in np.ndindex(*shape):
            where = np.zeros(shape, bool)
            where[index] = True
            for change in changes(equation, operands, before, position, where, other):
                if change.shape == shape:
                    assert not np.any(change & ~where)
                    changed |= change.any()
    assert changed or example[0] == "is_finite"


def scaled(values, factor):
    return [factor * v for v in values]


@pytest.mark.slow
@cases(lambda known: known.linear is not None)
def test_linear_ones_are_additive_and_homogeneous(example):
    equation, operands, other = built(example)
    known = rule(equation)
    positions = sorted(known.linear(equation))
    assert positions
    if not all(jnp.issubdtype(v.aval.dtype, jnp.floating) for v in equation.outputs):
        assert equation.name == "convert_element_type"  # rounding is not linear
        return
    tolerance = 1e-5 if equation.outputs[0].aval.dtype == jnp.float32 else 1e-10
    together = [positions] if known.joint else [[p] for p in positions]

    def results(values, moved):
        inputs = list(operands)
        for p, value in zip(moved, values, strict=True):
            inputs[p] = value.astype(jnp.asarray(operands[p]).dtype)
        return bind(equation, inputs)

    for moved in together:
        a = [jnp.asarray(operands[p]) for p in moved]
        b = [jnp.asarray(other[p]) for p in moved]
        both = results([-2.5 * x + y for x, y in zip(a, b, strict=True)], moved)
        for ours, of_a, of_b in zip(
            both, results(a, moved), results(b, moved), strict=True
        ):
            np.testing.assert_allclose(ours, -2.5 * of_a + of_b, tolerance, tolerance)


@cases(lambda known: known.joint)
def test_joint_ones_are_not_linear_in_one_operand_alone(example):
    # Otherwise a chain through one of them would lose what the others add.
    equation, operands, _ = built(example)
    positions = sorted(rule(equation).linear(equation))
    zero = bind(
        equation,
        [jnp.zeros_like(x) if p == positions[0] else x for p, x in enumerate(operands)],
    )
    nothing = bind(
        equation,
        [jnp.zeros_like(x) if p in positions else x for p, x in enumerate(operands)],
    )
    assert not np.any(nothing[0])
    if len(positions) > 1 and equation.name not in ("select_n",):
        assert np.any(zero[0])


@cases(lambda known: known.reduces is not None)
def test_reducing_ones_do_not_know_the_order(example):
    equation, operands, _ = built(example)
    known, rng = rule(equation), np.random.default_rng(2)
    reduced = known.reduces(equation)
    assert len(reduced) == len(operands)
    (before,) = arrays(bind(equation, operands))
    for axis in range(max(map(len, reduced))):
        lengths = {
            jnp.shape(x)[r[axis]] for x, r in zip(operands, reduced, strict=True)
        }
        order = rng.permutation(lengths.pop())
        assert not lengths
        mixed = [
            jnp.take(x, order, r[axis]) for x, r in zip(operands, reduced, strict=True)
        ]
        (after,) = arrays(bind(equation, mixed))
        after = order[after] if equation.name.startswith("arg") else after
        np.testing.assert_allclose(after, before, 1e-12)
    for places, axes in zip(known.axes(equation), reduced, strict=True):
        assert all(places[axis] is None for axis in axes)
        assert sum(place is None for place in places) == len(axes)


@cases(lambda known: known.hears == "moved")
def test_what_is_moved_is_the_entries_themselves(example):
    equation, operands, _ = built(example)
    (after,) = arrays(bind(equation, operands))
    entries = np.asarray(operands[0]).ravel()
    counts = np.arange(entries.size, dtype=float).reshape(np.shape(operands[0]))
    (places,) = arrays(bind(equation, [jnp.asarray(counts), *operands[1:]]))
    assert len(set(places.ravel())) == places.size
    np.testing.assert_array_equal(after, entries[places.astype(int)])


def test_an_unknown_primitive_is_opaque():
    program = flatten(lambda x: [jax.lax.map(jnp.sin, x)], jnp.ones(3))
    (loop,) = program.equations
    assert rule(loop) == primitives.OPAQUE
    assert rule(loop).axes is None
    assert rule(loop).linear is None
    assert not rule(loop).elementwise
    assert isinstance(loop.outputs[0], Variable)
