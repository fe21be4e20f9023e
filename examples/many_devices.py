"""Trains a network on handwritten digits over all devices of a machine.

    python examples/many_devices.py                      # the GPUs or TPUs there are
    python examples/many_devices.py --devices 8          # eight devices made of a CPU
    python examples/many_devices.py --space weights      # candidates, not examples

In node space every device has some of the examples, in weight space some of the
candidates; the numbers are the same on any number of devices. Every ``--save-every``
steps a checkpoint is written to ``--output``; started again, the run goes on from the
last one, on as many devices as there are then. The first process writes the losses to
``losses.jsonl`` there. ``multi_host.py`` is the same over many machines.

The data are scikit-learn's 1,797 bundled digits; nothing is downloaded.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from sklearn.datasets import load_digits

import qiaso_jax

MODEL: Any = nn.Sequential([nn.Dense(64), nn.relu, nn.Dense(10)])
AXIS = "devices"


def losses(params, x, y):
    """One loss per example."""
    logits = MODEL.apply(params, x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y)


def optimizer(args: argparse.Namespace, mesh: Mesh) -> tuple[Any, Any]:
    """The transformation, and the function whose value it lowers."""
    adam = optax.adam(args.learning_rate)
    if args.space == "node":
        tx = qiaso_jax.node_qiaso(
            args.candidates, examples=1.0, optimizer=adam, axis_name=AXIS
        )
        return tx, losses
    tx = qiaso_jax.qiaso(args.candidates, optimizer=adam, mesh=mesh)
    return tx, lambda params, x, y: losses(params, x, y).mean()


def train(args: argparse.Namespace) -> None:
    """Trains over all devices, of all processes."""
    devices = np.array(jax.devices())
    mesh = Mesh(devices, (AXIS,))
    everywhere, by_example = NamedSharding(mesh, P()), NamedSharding(mesh, P(AXIS))
    x, y = load_digits(return_X_y=True)
    x, y = (x / 16).astype("float32"), y.astype("int32")
    tx, value_fn = optimizer(args, mesh)

    @jax.jit
    def step(params, state, x, y):
        updates, state = tx.update(None, state, params, value_fn=value_fn, x=x, y=y)
        loss = optax.tree.get(state, "expected_loss")
        return optax.apply_updates(params, updates), state, loss

    def start():
        params = MODEL.init(jax.random.key(args.seed), jnp.zeros((1, 64)))
        return params, tx.init(params)

    def placed(array):
        lies = by_example if args.space == "node" else everywhere
        return jax.make_array_from_callback(array.shape, lies, array.__getitem__)

    output = Path(args.output).absolute()
    output.mkdir(parents=True, exist_ok=True)
    with (
        jax.set_mesh(mesh),
        ocp.CheckpointManager(output / "checkpoints") as checkpoints,
    ):
        training = jax.jit(start, out_shardings=everywhere)()
        first = checkpoints.latest_step() or 0
        if first:
            like = jax.tree.map(ocp.utils.to_shape_dtype_struct, training)
            restore = ocp.args.StandardRestore(like)
            training = checkpoints.restore(first, args=restore)
        for number in range(first + 1, args.steps + 1):
            rng = np.random.default_rng((args.seed, number))
            rows = rng.choice(len(x), args.batch_size, replace=False)
            *training, loss = step(*training, placed(x[rows]), placed(y[rows]))
            training = tuple(training)
            if jax.process_index() == 0:
                line = json.dumps({"step": number, "loss": float(loss)})
                with (output / "losses.jsonl").open("a") as file:
                    file.write(line + "\n")
                if number % args.print_every == 0:
                    print(f"step {number}: loss {float(loss):.4f}", flush=True)
            if number % args.save_every == 0:
                save = ocp.args.StandardSave(training)
                checkpoints.save(number, args=save)
                checkpoints.wait_until_finished()


def parser(description: str | None = __doc__) -> argparse.ArgumentParser:
    """The options of this script, and of ``multi_host.py``."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--space", choices=["node", "weights"], default="node")
    options.add_argument("--candidates", type=int, default=32)
    options.add_argument("--learning-rate", type=float, default=1e-2)
    options.add_argument("--batch-size", type=int, default=256)
    options.add_argument("--steps", type=int, default=200)
    options.add_argument("--save-every", type=int, default=50)
    options.add_argument("--print-every", type=int, default=50)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--output", default="output/many_devices")
    options.add_argument(
        "--devices", type=int, help="devices to be made of the CPU of each process"
    )
    return options


def make_devices(args: argparse.Namespace) -> None:
    """Makes several devices of a CPU, if asked for; before JAX is used."""
    if args.devices is not None:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", args.devices)


if __name__ == "__main__":
    arguments = parser().parse_args()
    make_devices(arguments)
    train(arguments)
