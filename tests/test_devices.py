"""Candidates and examples over devices: the same numbers, wherever they are drawn."""

import re
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from crosses import crossed
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import qiaso_jax

NUMBER = 8
pytestmark = pytest.mark.skipif(
    jax.device_count() < NUMBER, reason=f"needs {NUMBER} devices"
)

RNG = np.random.default_rng(0)
PARAMS = {
    "in": RNG.normal(size=(20, 16)) / 4,
    "bias": np.zeros(16),
    "out": RNG.normal(size=(16, 3)) / 4,
}
X, Y = RNG.normal(size=(32, 20)), RNG.integers(0, 3, 32)

MESHES = {
    f"{number} {kind.name}": (number, kind)
    for number, kind in [
        (1, AxisType.Explicit),
        (2, AxisType.Explicit),
        (4, AxisType.Auto),
        (8, AxisType.Auto),
        (8, AxisType.Explicit),
    ]
}
WHOLE = P()
WAYS = ["mesh", "context", "shard_map", "unchecked"]


def qiaso(num_candidates=32, **settings):
    return qiaso_jax.qiaso(num_candidates, 0.1, **settings)


def node_qiaso(**settings):
    given = {"examples": 1.0, "optimizer": optax.sgd(1.0), **settings}
    return qiaso_jax.node_qiaso(8, 0.1, **given)


QIASO = {
    "signs": qiaso,
    "normal": partial(qiaso, directions="gaussian"),
    "low rank": partial(qiaso, directions="low_rank"),
    "in chunks": partial(qiaso, candidate_batch_size=2),
    "low rank in chunks": partial(qiaso, directions="low_rank", candidate_batch_size=2),
    "groups": partial(qiaso, 4, groups=8),
}
NODE = {
    "node": partial(node_qiaso, space="node"),
    "weights": partial(node_qiaso, space="weights"),
    "example": partial(node_qiaso, space="example"),
    "normal": partial(node_qiaso, directions="gaussian"),
    "exponential weights": partial(node_qiaso, eta=2.0),
}


def losses(params, x, y):
    hidden = jnp.tanh(x @ params["in"] + params["bias"][None])
    return optax.softmax_cross_entropy_with_integer_labels(hidden @ params["out"], y)


def loss(params, x, y):
    return jnp.mean(losses(params, x, y))


def mesh_of(number, kind=AxisType.Auto):
    devices = jax.devices()[:number]
    return jax.make_mesh((number,), ("d",), axis_types=(kind,), devices=devices)


def arrays(dtype):
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype), PARAMS)
    return params, jnp.asarray(X, dtype), jnp.asarray(Y)


def stepped(make, value_fn, way, mesh, dtype="float64", batch=WHOLE):
    """Updates and state after one step over the devices of a mesh."""
    params, x, y = arrays(dtype)
    if batch != WHOLE:
        x, y = jax.device_put((x, y), NamedSharding(mesh, batch))
    named = {"mesh": mesh} if way == "mesh" else {"axis_name": "d"}
    tx = make(**({} if way == "found" else named))

    def step(params, state, x, y):
        return tx.update(None, state, params, value_fn=value_fn, x=x, y=y)

    if way in ("shard_map", "unchecked"):
        step = jax.shard_map(
            step,
            mesh=mesh,
            in_specs=(P(), P(), batch, batch),
            out_specs=P(),
            check_vma=way == "shard_map",
        )
    if way == "context":
        with jax.set_mesh(mesh):
            return jax.jit(step)(params, tx.init(params), x, y)
    return jax.jit(step)(params, tx.init(params), x, y)


@cache
def alone(make, value_fn, dtype="float64"):
    """The same on one device."""
    params, x, y = arrays(dtype)
    tx = make()
    return jax.jit(
        lambda: tx.update(None, tx.init(params), params, value_fn=value_fn, x=x, y=y)
    )()


def assert_equal_displacements(found, expected, tolerance):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        error = np.linalg.norm(np.asarray(a, np.float64) - np.asarray(b, np.float64))
        assert error <= tolerance * np.linalg.norm(np.asarray(b, np.float64))


@pytest.mark.slow
@pytest.mark.parametrize(("mesh", "way", "make"), crossed(MESHES, WAYS, QIASO))
def test_candidates_are_the_same_numbers(mesh, way, make):
    with jax.enable_x64(True):
        expected, before = alone(make, loss)
        found, state = stepped(make, loss, way, mesh_of(*mesh))
        np.testing.assert_array_equal(state.log_amplitudes, before.log_amplitudes)
        assert_equal_displacements(found, expected, 1e-10)


@pytest.mark.parametrize("make", QIASO.values(), ids=QIASO)
def test_candidates_in_single_precision(make):
    expected, before = alone(make, loss, "float32")
    found, state = stepped(make, loss, "mesh", mesh_of(NUMBER), "float32")
    np.testing.assert_array_equal(state.info.best_loss, before.info.best_loss)
    assert_equal_displacements(found, expected, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mesh", "way", "make"),
    crossed(
        {name: mesh for name, mesh in MESHES.items() if mesh[0] > 1},
        ["found", "context", "shard_map", "unchecked"],
        NODE,
    ),
)
def test_examples_are_the_same_numbers(mesh, way, make):
    with jax.enable_x64(True):
        expected, before = alone(make, losses)
        found, state = stepped(make, losses, way, mesh_of(*mesh), batch=P("d"))
        assert_equal_displacements(found, expected, 1e-10)
        for a, b in zip(state.info, before.info, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_a_choice_of_examples_is_unbiased():
    mesh = mesh_of(4)
    params, x, y = arrays("float32")
    tx = qiaso_jax.node_qiaso(
        16, 1e-2, examples=0.25, axis_name="d", optimizer=optax.sgd(1.0)
    )

    def step(seed, params, x, y):
        key = jax.random.key_data(jax.random.key(seed))
        state = tx.init(params)._replace(key=key)
        return tx.update(None, state, params, value_fn=losses, x=x, y=y)[0]

    def mean(seeds, *args):
        def add(total, seed):
            total = jax.tree.map(jnp.add, total, step(seed, *args))
            return total, None

        zeros = jax.tree.map(jnp.zeros_like, args[0])
        total, _ = jax.lax.scan(add, zeros, seeds)
        return jax.tree.map(lambda t: -t / len(seeds), total)

    mapped = jax.shard_map(
        mean,
        mesh=mesh,
        in_specs=(P(), P(), P("d"), P("d")),
        out_specs=P(),
        check_vma=False,
    )
    found = [
        jax.jit(mapped)(jnp.arange(i * 200, (i + 1) * 200), params, x, y)
        for i in range(5)
    ]
    gradient = jax.grad(lambda p: loss(p, x, y))(params)
    for name, expected in gradient.items():
        each = np.stack([run[name] for run in found])
        error = np.linalg.norm(each.mean(0) - expected)
        noise = np.sqrt(np.sum(each.var(0, ddof=1)) / len(each))
        assert error < 1.5 * noise < 0.75 * np.linalg.norm(expected)


def compiled_of(make, value_fn, mesh, batch):
    params, x, y = arrays("float32")
    if mesh is not None:
        x, y = jax.device_put((x, y), NamedSharding(mesh, batch))
    tx = make(axis_name="d") if mesh is not None else make()

    def step(params, state, x, y):
        return tx.update(None, state, params, value_fn=value_fn, x=x, y=y)

    if mesh is not None:
        specs = (P(), P(), batch, batch)
        step = jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=P())
    return jax.jit(step).lower(params, tx.init(params), x, y).compile()


def numbers_that_cross(compiled):
    """How many numbers each collective of a compiled program takes."""
    pattern = r"= (.*?) (all-reduce|all-gather|all-to-all|collective-permute|"
    pattern += r"reduce-scatter)(-start)?\("
    found = re.findall(pattern, compiled.as_text())
    return [
        sum(
            int(np.prod([int(n) for n in shape.split(",") if n]))
            for shape in re.findall(r"\w+\[([\d,]*)\]", shapes)
        )
        for shapes, *_ in found
    ]


def test_losses_and_one_displacement_cross():
    size = sum(x.size for x in PARAMS.values())
    compiled = compiled_of(qiaso, loss, mesh_of(NUMBER), P())
    assert sorted(numbers_that_cross(compiled)) in ([32, size], [32 + size])


def test_a_device_does_its_part_of_the_work():
    def cost(compiled):
        return compiled.cost_analysis()["flops"]

    def most_words(compiled):
        shapes = re.findall(r"u32\[([\d,]+)\]", compiled.as_text())
        return max(int(np.prod([int(n) for n in shape.split(",")])) for shape in shapes)

    def many(**axis):
        return qiaso(512, **axis)

    for make, value_fn, batch in (
        (many, loss, P()),
        (node_qiaso, losses, P("d")),
    ):
        whole = compiled_of(make, value_fn, None, batch)
        part = compiled_of(make, value_fn, mesh_of(NUMBER), batch)
        assert most_words(part) == most_words(whole) / NUMBER
        assert cost(part) < 0.2 * cost(whole)


@pytest.mark.parametrize("make", [qiaso, node_qiaso], ids=["qiaso", "node_qiaso"])
def test_what_varies_over_devices_is_refused(make):
    value_fn = losses if make is node_qiaso else loss
    params, x, y = arrays("float32")
    tx = make()
    step = jax.shard_map(
        lambda p, s, x, y: tx.update(None, s, p, value_fn=value_fn, x=x, y=y),
        mesh=mesh_of(2),
        in_specs=(P(), P(), P("d"), P("d")),
        out_specs=P(),
    )
    hint = "axis_name='d'" if make is node_qiaso else r"jax.lax.pmean\(loss, 'd'\)"
    with pytest.raises(ValueError, match=f"varies over the mesh axis 'd'.*{hint}"):
        step(params, tx.init(params), x, y)


def test_a_reduced_loss_of_divided_examples():
    params, x, y = arrays("float32")
    expected, _ = alone(qiaso, loss, "float32")
    tx = qiaso()

    def reduced(params, x, y):
        return jax.lax.pmean(loss(params, x, y), "d")

    step = jax.shard_map(
        lambda p, s, x, y: tx.update(None, s, p, value_fn=reduced, x=x, y=y),
        mesh=mesh_of(4),
        in_specs=(P(), P(), P("d"), P("d")),
        out_specs=P(),
    )
    found, _ = jax.jit(step)(params, tx.init(params), x, y)
    assert_equal_displacements(found, expected, 1e-4)


def test_candidates_together():
    params, x, y = arrays("float32")
    expected, _ = alone(qiaso, loss, "float32")
    tx = qiaso(mesh=mesh_of(4))
    seen = []

    def together(candidates, x, y):
        seen.append(candidates["in"].shape[0])
        return jax.vmap(lambda p: loss(p, x, y))(candidates)

    found, _ = jax.jit(
        lambda p, s: tx.update(None, s, p, candidates_value_fn=together, x=x, y=y)
    )(params, tx.init(params))
    assert seen == [32 // 4]
    assert_equal_displacements(found, expected, 1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_candidates": 12}, "num_candidates must be a multiple of 8.*of pairs"),
        ({"num_candidates": 4, "groups": 6}, "groups must be a multiple of 4"),
    ],
)
def test_what_does_not_divide_is_refused(settings, message):
    params, x, y = arrays("float32")
    tx = qiaso(**settings, mesh=mesh_of(4))
    with pytest.raises(ValueError, match=message):
        tx.update(None, tx.init(params), params, value_fn=loss, x=x, y=y)


def test_examples_that_do_not_divide_are_refused():
    params, x, y = arrays("float32")
    tx = node_qiaso(axis_name="d")
    with (
        jax.set_mesh(mesh_of(8)),
        pytest.raises(ValueError, match=r"30 examples .* multiple of 8"),
    ):
        tx.update(None, tx.init(params), params, value_fn=losses, x=x[:30], y=y[:30])


def test_arguments_are_checked():
    mesh = jax.make_mesh((2, 2), ("a", "b"), devices=jax.devices()[:4])
    with pytest.raises(TypeError, match=r"mesh must be a jax.sharding.Mesh"):
        qiaso(mesh="d")
    with pytest.raises(TypeError, match="axis_name must be the name of one axis"):
        qiaso(axis_name=("a", "b"))
    with pytest.raises(ValueError, match="axis_name must say along which"):
        qiaso(mesh=mesh)
    with pytest.raises(ValueError, match=r"one of the axes \['a', 'b'\].*'c'"):
        qiaso(mesh=mesh, axis_name="c")
    with pytest.raises(ValueError, match="collapse_every=1, tunnelling=None"):
        qiaso(mesh=mesh, axis_name="a", collapse_every=2)
    params, x, y = arrays("float32")
    tx = qiaso(axis_name="nowhere")
    with pytest.raises(ValueError, match="axis_name='nowhere' is no axis here"):
        tx.update(None, tx.init(params), params, value_fn=loss, x=x, y=y)
    tx = qiaso(mesh=mesh, axis_name="a")
    with pytest.raises(ValueError, match="ask and tell are of all candidates"):
        qiaso_jax.ask(tx, tx.init(params), params)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("space", ["node", "weights", None])
def test_parameters_over_another_axis(space, kind):
    mesh = jax.make_mesh((4, 2), ("d", "m"), axis_types=(kind, kind))
    lie = {"in": P(None, "m"), "bias": P("m"), "out": P("m", None)}

    def make(**axis):
        return qiaso(**axis) if space is None else node_qiaso(space=space, **axis)

    def divided_losses(params, x, y):
        hidden = jnp.tanh(x @ params["in"] + params["bias"][None])
        logits = jnp.einsum("bh,ho->bo", hidden, params["out"], out_sharding=P())
        return optax.softmax_cross_entropy_with_integer_labels(logits, y)

    def mean_loss(params, x, y):
        return jnp.mean(divided_losses(params, x, y))

    with jax.enable_x64(True):
        expected, _ = alone(make, loss if space is None else losses)
        params, x, y = arrays("float64")
        params = {
            name: jax.device_put(leaf, NamedSharding(mesh, lie[name]))
            for name, leaf in params.items()
        }
        batch = P() if space is None else P("d")
        x, y = jax.device_put((x, y), NamedSharding(mesh, batch))
        tx = make(axis_name="d")
        value_fn = mean_loss if space is None else divided_losses

        def step(params, x, y):
            state = tx.init(params)
            return tx.update(None, state, params, value_fn=value_fn, x=x, y=y)[0]

        with jax.set_mesh(mesh):
            found = jax.jit(step)(params, x, y)
        assert_equal_displacements(found, expected, 1e-10)


@pytest.mark.parametrize("directions", ["rademacher", "gaussian", "low_rank"])
def test_parts_of_a_parameter_have_directions_of_their_own(directions):
    tx = qiaso_jax.qiaso(8, 0.1, directions=directions)
    params = {"split": jnp.zeros((40, 16)), "whole": jnp.zeros((20, 16))}

    def value_fn(params):
        own = jnp.sum(jnp.tanh(params["split"])) + jnp.sum(params["whole"]) / 2
        return jax.lax.psum(own, "m")

    def asked(params):
        state = tx.init(params)
        updates, state = tx.update(None, state, params, value_fn=value_fn)
        return qiaso_jax.ask(tx, state, params), updates, state.info.unresolved

    lie = {"split": P("m"), "whole": P()}
    step = jax.shard_map(
        asked,
        mesh=jax.make_mesh(
            (2,), ("m",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2]
        ),
        in_specs=(lie,),
        out_specs=({"split": P(None, "m"), "whole": P()}, lie, P()),
    )
    candidates, updates, unresolved = jax.jit(step)(params)
    first, second = np.split(np.asarray(candidates["split"]), 2, axis=1)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.2
    assert updates["split"].shape == (40, 16)
    assert unresolved == 0


def test_candidates_on_examples_of_their_own_are_refused():
    params, x, y = arrays("float32")
    tx = qiaso(axis_name="d")
    step = jax.shard_map(
        lambda p, s, x, y: tx.update(None, s, p, value_fn=loss, x=x, y=y),
        mesh=mesh_of(2),
        in_specs=(P(), P(), P("d"), P("d")),
        out_specs=P(),
    )
    with pytest.raises(ValueError, match="each would be evaluated on other examples"):
        step(params, tx.init(params), x, y)


def test_split_parameters_are_refused_in_node_space():
    params, x, y = arrays("float32")
    tx = node_qiaso()

    def step(params, x, y):
        state = tx.init(params)
        return tx.update(None, state, params, value_fn=losses, x=x, y=y)[0]

    lie = {"in": P("d"), "bias": P(), "out": P()}
    with pytest.raises(ValueError, match="takes parameters that are the same on all"):
        jax.shard_map(
            step, mesh=mesh_of(2), in_specs=(lie, P(None, "d"), P()), out_specs=lie
        )(params, x, y)


def test_tell_is_refused_over_devices():
    params, _, _ = arrays("float32")
    tx = qiaso(mesh=mesh_of(2))
    with pytest.raises(ValueError, match="ask and tell are of all candidates"):
        qiaso_jax.tell(tx, tx.init(params), params, jnp.zeros(32))
