"""One measurement, in a process of its own: a step on so many devices.

``python -m benchmarks.devices.worker METHOD DEVICES STEPS`` prints seconds and what the
compiled program says, as JSON. XLA makes the devices of a CPU, by its flags.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import qiaso_jax
from benchmarks.step_cost import models
from benchmarks.step_cost.methods import RATE, SIGMA

AXIS = "devices"
CANDIDATES = 64
EXAMPLES = {"node": 2048}
"""In a minibatch; 128 for candidates of whole parameters."""
SIZES = {"f64": 8, "f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "pred": 1}
METHODS = ("rademacher", "low_rank", "node")


def transformation(method: str, mesh: Mesh) -> Any:
    """The optimizer that is measured."""
    adam = optax.adam(RATE)
    if method == "node":
        return qiaso_jax.node_qiaso(
            30, SIGMA, examples=1.0, optimizer=adam, axis_name=AXIS
        )
    kind: Any = method
    return qiaso_jax.qiaso(
        CANDIDATES, SIGMA, directions=kind, optimizer=adam, mesh=mesh
    )


def crossing(program: str) -> dict[str, int]:
    """How many collectives a compiled program has, and the bytes that they reduce."""
    kinds = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
    found = re.findall(rf"= (.*?) (?:{kinds})(?:-start)?\(", program)
    sizes = [
        SIZES[kind] * int(np.prod([int(n) for n in shape.split(",") if n]))
        for shapes in found
        for kind, shape in re.findall(r"(\w+)\[([\d,]*)\]", shapes)
    ]
    return {"collectives": len(found), "bytes": sum(sizes)}


def measured(method: str, devices: int, steps: int) -> dict[str, Any]:
    """Seconds of each step, and what the compiled program says."""
    mesh = Mesh(np.array(jax.devices()[:devices]), (AXIS,))
    model = models.mlp(EXAMPLES.get(method, 128))
    tx = transformation(method, mesh)
    value_fn: Callable[..., Any] = model.losses if method == "node" else model.loss
    spec = P(AXIS) if method == "node" else P()
    batch = jax.device_put(model.batch, NamedSharding(mesh, spec))

    def step(params: Any, state: Any, batch: Any) -> Any:
        updates, state = tx.update(None, state, params, value_fn=value_fn, batch=batch)
        return optax.apply_updates(params, updates), state

    with jax.set_mesh(mesh):
        everywhere = NamedSharding(mesh, P())
        start = jax.jit(lambda p: (p, tx.init(p)), out_shardings=everywhere)
        training = start(model.params)
        compiled = jax.jit(step).lower(*training, batch).compile()
        seconds = []
        for _ in range(steps + 2):
            begin = time.perf_counter()
            training = jax.block_until_ready(compiled(*training, batch))
            seconds.append(time.perf_counter() - begin)
    cost = compiled.cost_analysis()
    flops = cost["flops"] if isinstance(cost, dict) else float("nan")
    return {
        "seconds": seconds[2:],
        "flops": flops,
        **crossing(compiled.as_text() or ""),
    }


if __name__ == "__main__":
    chosen, number, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    print(json.dumps(measured(chosen, number, count)))
