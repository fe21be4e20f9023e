"""Bytes that mean harm, through what the documentation names for checkpoints.

Nothing in them is executed, and what comes of them is an error, or a state of the right
shapes.
"""

import os
import pickle
import shutil
import struct

import flax.serialization
import jax
import jax.numpy as jnp
import msgpack
import numpy as np
import optax
import pytest
from registry import PARAMS, X, Y, mean_loss

from benchmarks.harness.checkpoints import Checkpoints
from qiaso_jax import qiaso

pytestmark = pytest.mark.slow

TX = qiaso(4, collapse_every=2, optimizer=optax.adam(0.1))
STATE = TX.init(PARAMS)
STORED = flax.serialization.to_bytes(STATE)
EXPERIMENT = {"of": "hostile bytes"}


class Trap:
    """An object whose pickle leaves a folder where it is read."""

    def __init__(self, place):
        self.place = str(place)

    def __reduce__(self):
        return os.makedirs, (self.place,)


@pytest.fixture
def sprung(tmp_path):
    """Where the trap leaves its folder."""
    return tmp_path / "sprung"


@pytest.fixture
def trap(sprung):
    return pickle.dumps(Trap(sprung))


def test_the_trap_works(trap, sprung):
    pickle.loads(trap)
    assert sprung.exists()


def array(dtype, shape, content):
    """An array as flax packs it."""
    return msgpack.ExtType(1, msgpack.packb((shape, dtype, content)))


def with_leaf(leaf):
    """The stored state with another thing for its log-amplitudes."""
    content = msgpack.unpackb(STORED, strict_map_key=False)
    return msgpack.packb(content | {"log_amplitudes": leaf})


def disguised(trap):
    """Pickles where other things are expected."""
    yield trap
    yield msgpack.packb(trap)
    yield with_leaf(trap)
    yield from (with_leaf(msgpack.ExtType(code, trap)) for code in range(128))
    for dtype in ("object", "O", "|O", "V8", "S", "U", "float32", "bfloat16", "", "x"):
        yield with_leaf(array(dtype, (4,), trap))
    yield with_leaf({"__msgpack_chunked_array__": True, "shape": trap, "chunks": trap})
    yield STORED + trap


def oversized():
    """Lengths and shapes beyond all memory, and nesting beyond all stacks."""
    for head in (0xC6, 0xC9, 0xDB, 0xDD, 0xDF):
        yield bytes([head]) + struct.pack(">I", 2**32 - 1) + b"\x01" * 8
    for nested in (b"\x91", b"\x81\xa1a"):
        yield nested * 100_000 + b"\x01"
    for shape in ((2**62,), (2**31, 2**31, 2**31), (-4, -1), (4.0,), ("4",)):
        yield with_leaf(array("float32", shape, b"\0" * 16))
    shape = {"0": 2**40}
    chunks = {"0": array("float32", (4,), b"\0" * 16)}
    yield with_leaf(
        {"__msgpack_chunked_array__": True, "shape": shape, "chunks": chunks}
    )


def reshaped():
    """Well-formed, and of other shapes."""
    for number in (0, 1, 3, 5, 400):
        yield with_leaf(array("float32", (number,), b"\0" * 4 * number))
    yield with_leaf(array("float32", (), b"\0" * 4))
    yield with_leaf(array("float32", (2, 2), b"\0" * 16))
    yield with_leaf(0.0)
    yield with_leaf(None)
    yield with_leaf("0")
    yield with_leaf([0.0] * 4)
    yield with_leaf({})


def at_random(rng):
    """Random bytes, and the stored ones with some overwritten, left out or added."""
    for _ in range(150):
        yield rng.bytes(rng.integers(1, 400))
        first, last = sorted(rng.integers(len(STORED), size=2))
        yield STORED[:first] + STORED[last:]
        yield STORED[:first] + rng.bytes(8) + STORED[first + 8 :]
        yield STORED[:first] + rng.bytes(8) + STORED[first:]


def shapes(state):
    return jax.tree.map(jnp.shape, state._replace(info=()))


def check(content):
    """Asserts that ``content`` is refused, or is a state of the right shapes."""
    try:
        state = flax.serialization.from_bytes(STATE, content)
    except Exception:  # msgpack and numpy raise many kinds, and not all in words
        return "refused by flax"

    def step(state):
        return TX.update(None, state, PARAMS, value_fn=mean_loss, x=X, y=Y)

    try:
        # Only a state of arrays can enter what is compiled.
        jax.eval_shape(step, state)
    except (TypeError, ValueError):
        return "refused by update"
    assert shapes(state) == shapes(STATE)
    return "accepted"


def outcomes(contents):
    return {check(content) for content in contents}


def test_pickles_in_disguise_are_not_executed(trap, sprung):
    assert outcomes(disguised(trap)) <= {"refused by flax", "refused by update"}
    assert not sprung.exists()


def test_lengths_beyond_memory_are_refused():
    assert outcomes(oversized()) <= {"refused by flax", "refused by update"}


def test_other_shapes_are_refused():
    assert outcomes(reshaped()) <= {"refused by flax", "refused by update"}


def test_what_is_accepted_of_random_bytes_has_the_right_shapes():
    # Among 600 some are refused by each, and some are other numbers in place.
    found = outcomes(at_random(np.random.default_rng(0)))
    assert found >= {"refused by flax", "accepted"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "checkpoints"
    with Checkpoints(folder, EXPERIMENT) as checkpoints:
        checkpoints.save(1, STATE)
    return folder


def altered(trap, rng):
    """What is written in place of the content of a file."""
    return {
        "a pickle": lambda content: trap,
        "a pickle at the end": lambda content: content + trap,
        "random bytes": lambda content: rng.bytes(len(content)),
        "nothing": lambda content: b"",
        "other numbers in it": lambda content: content.translate(
            bytes.maketrans(b"0123456789", b"1234567890")
        ),
        "other dtypes in it": lambda content: content.replace(b"<f4", b"|O").replace(
            b"float32", b"object"
        ),
        "other names in it": lambda content: content.replace(b"NamedTuple", b"os.sys"),
    }


def test_an_altered_checkpoint_of_orbax_is_as_it_was_or_refused(
    folder, trap, sprung, tmp_path
):
    rng = np.random.default_rng(0)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    said, accepted = [], 0
    for path in files:
        for change in altered(trap, rng).values():
            content = path.read_bytes()
            changed = change(content)
            if changed == content:
                continue
            copy = tmp_path / "copy"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(folder, copy / "checkpoints")
            (copy / "checkpoints" / path.relative_to(folder)).write_bytes(changed)
            with Checkpoints(copy / "checkpoints", EXPERIMENT) as checkpoints:
                found = checkpoints.restore(STATE, said.append)
            if found is not None:
                accepted += 1
                jax.tree.map(np.testing.assert_array_equal, found[1], STATE)
    assert accepted > 0
    assert len(said) > len(files)
    assert all("checkpoint of epoch 1 refused: " in sentence for sentence in said)
    assert not sprung.exists()
