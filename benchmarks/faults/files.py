"""Checkpoints that are damaged, or of something else: read, refused, or misread."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax

import qiaso_jax
from benchmarks.cli import UserError
from benchmarks.harness.checkpoints import Checkpoints, digest

EXPERIMENT = {"of": "benchmarks.faults"}
BITS = 8
OLD_STATES = Path(__file__).parents[2] / "tests/stored_states"
OUTCOMES = ("refused", "read as it was stored", "misread")


def truncated(content: bytes, rng: np.random.Generator) -> bytes:
    """The file up to a random place."""
    return content[: rng.integers(len(content))]


def flipped(content: bytes, rng: np.random.Generator) -> bytes:
    """The file with one random bit the other way."""
    changed = np.frombuffer(content, np.uint8).copy()
    changed[rng.integers(len(changed))] ^= 1 << rng.integers(BITS)
    return changed.tobytes()


def overwritten(content: bytes, rng: np.random.Generator) -> bytes:
    """The file with random bytes for up to 64 of its own, at a random place."""
    first = rng.integers(len(content))
    new = rng.bytes(int(min(64, len(content) - first)))
    return content[:first] + new + content[first + len(new) :]


DAMAGES: dict[str, Callable[[bytes, np.random.Generator], bytes]] = {
    "a file truncated": truncated,
    "a bit flipped": flipped,
    "64 bytes overwritten": overwritten,
}


def trained() -> tuple[Any, Any, Any]:
    """An optimizer, parameters and a state after some steps."""
    tx: Any = qiaso_jax.qiaso(8, collapse_every=3, optimizer=optax.adam(0.1))
    params = {"w": jnp.linspace(-1, 1, 50), "b": jnp.float32(0.5)}
    state = tx.init(params)

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(None, state, params, value_fn=optax.tree.norm)
        return (optax.apply_updates(params, updates), state), None

    params, state = jax.jit(
        lambda carry: jax.lax.scan(step, carry, length=5)[0],
    )((params, state))
    return tx, params, state


def damaged_checkpoints(
    folder: Path, name: str, number: int, seed: int = 0
) -> dict[str, Any]:
    """What the harness makes of so many checkpoints, each with one damaged file."""
    _, params, state = trained()
    stored = {"params": params, "state": state}
    with Checkpoints(folder / "whole", EXPERIMENT) as checkpoints:
        checkpoints.save(1, stored)
        checkpoints.finish()
    rng = np.random.default_rng(seed)
    outcomes = Counter()
    for trial in range(number):
        copy = folder / str(trial) / "checkpoints"
        shutil.copytree(folder / "whole", copy)
        files = sorted(path for path in copy.rglob("*") if path.is_file())
        files = [path for path in files if path.stat().st_size]
        path = files[rng.integers(len(files))]
        path.write_bytes(DAMAGES[name](path.read_bytes(), rng))
        with Checkpoints(copy, EXPERIMENT) as checkpoints:
            found = checkpoints.restore(stored, lambda _: None)
        outcomes[_outcome(found and found[1], stored)] += 1
        shutil.rmtree(copy.parent)
    return _row("orbax and a digest, as in the harness", name, number, outcomes)


def damaged_bytes(name: str, number: int, seed: int = 0) -> list[dict[str, Any]]:
    """The same of flax's msgpack, alone and with a digest of it kept apart."""
    _, params, state = trained()
    stored = {"params": params, "state": state}
    content = flax.serialization.to_bytes(stored)
    kept = hashlib.sha256(content).digest()

    def alone(damaged: bytes) -> Any:
        return flax.serialization.from_bytes(stored, damaged)

    def compared(damaged: bytes) -> Any:
        if hashlib.sha256(damaged).digest() != kept:
            raise UserError("it is damaged (its content does not have its digest)")
        return alone(damaged)

    rows = []
    for said, read in {"alone": alone, "and a digest": compared}.items():
        rng = np.random.default_rng(seed)
        outcomes = Counter()
        for _ in range(number):
            try:
                found = read(DAMAGES[name](content, rng))
            except Exception:  # msgpack and numpy raise many kinds
                found = None
            outcomes[_outcome(found, stored)] += 1
        rows.append(_row(f"msgpack, {said}", name, number, outcomes))
    return rows


def old_states() -> dict[str, Any]:
    """What flax makes of states that the version before this one stored."""
    params = {"w": jnp.array([[0.3, 0.1, -0.2]]), "n": jnp.arange(2)}
    settings: dict[str, Any] = {"num_candidates": 4, "optimizer": optax.adam(0.1)}
    makers = {
        "qiaso": partial(qiaso_jax.qiaso, collapse_every=3),
        "factorised_qiaso": partial(qiaso_jax.factorised_qiaso, collapse_every=3),
        "node_qiaso": qiaso_jax.node_qiaso,
    }
    outcomes = Counter()
    for name, make in makers.items():
        stored = (OLD_STATES / f"{name}.msgpack").read_bytes()
        try:
            flax.serialization.from_bytes(make(**settings).init(params), stored)
            outcomes["misread"] += 1
        except ValueError:
            outcomes["refused"] += 1
    return _row("msgpack, alone", "a state of version 0", len(makers), outcomes)


def foreign_states() -> dict[str, Any]:
    """What ``update`` makes of states of another optimizer or of other parameters."""
    tx, params, _ = trained()
    others = [
        qiaso_jax.qiaso(16, collapse_every=3, optimizer=optax.adam(0.1)).init(params),
        qiaso_jax.qiaso(8, optimizer=optax.adam(0.1)).init(params),
        qiaso_jax.qiaso(8, collapse_every=3, optimizer=optax.sgd(0.1)).init(params),
        qiaso_jax.factorised_qiaso(8, optimizer=optax.adam(0.1)).init(params),
        qiaso_jax.node_qiaso(8, optimizer=optax.adam(0.1)).init(params),
        tx.init(params | {"w": jnp.zeros(51)}),
        tx.init({"w": params["w"]}),
    ]
    outcomes = Counter()
    for other in others:
        try:
            tx.update(None, other, params, value_fn=optax.tree.norm)
            outcomes["misread"] += 1
        except ValueError:
            outcomes["refused"] += 1
    return _row("update", "a state of another optimizer", len(others), outcomes)


def _outcome(found: Any, stored: Any) -> str:
    if found is None:
        return "refused"
    same = digest(jax.device_get(found)) == digest(jax.device_get(stored))
    return "read as it was stored" if same else "misread"


def _row(reader: str, injected: str, number: int, outcomes: Counter) -> dict[str, Any]:
    counts = {name: outcomes[name] for name in OUTCOMES}
    return {"reader": reader, "injected": injected, "trials": number} | counts
