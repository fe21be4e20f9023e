"""Trains a Flax network on handwritten digits without gradients, and Adam beside it.

The data are scikit-learn's 1,797 bundled digits; nothing is downloaded. Writes
``digits.svg``, ``digits.png`` and ``metrics.json`` to ``--output``.
"""

import argparse
import json
import os
import platform
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from rich.progress import Progress
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import qiaso_jax
from qiaso_jax import plot

MODEL: Any = nn.Sequential([nn.Dense(32), nn.relu, nn.Dense(10)])


def load_splits(seed=0):
    """Train (1,200), validation (237) and test (360) sets as (pixels, label)."""
    x, y = load_digits(return_X_y=True)
    x = x.astype("float32") / 16
    x, x_test, y, y_test = train_test_split(
        x, y, test_size=360, random_state=seed, stratify=y
    )
    x, x_valid, y, y_valid = train_test_split(
        x, y, test_size=237, random_state=seed, stratify=y
    )
    splits = {
        "train": (x, y),
        "validation": (x_valid, y_valid),
        "test": (x_test, y_test),
    }
    return jax.tree.map(jnp.asarray, splits)


def train(tx, splits, args, progress, name):
    """Trains one network; returns its metrics of every epoch."""
    x, y = splits["train"]
    num_steps = len(x) // args.batch_size
    params = MODEL.init(jax.random.key(args.seed), x[:1])
    state = tx.init(params)

    def loss(params, x, y):
        logits = MODEL.apply(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    @jax.jit
    def epoch(params, state, key):
        order = jax.random.permutation(key, len(x))[: num_steps * args.batch_size]

        def step(carry, rows):
            params, state = carry
            if name == "adam":
                updates = jax.grad(loss)(params, x[rows], y[rows])
            else:
                updates = optax.tree.zeros_like(params)
            updates, state = tx.update(
                updates, state, params, value_fn=loss, x=x[rows], y=y[rows]
            )
            info = optax.tree.get(state, "info", default={})
            return (optax.apply_updates(params, updates), state), info

        batches = order.reshape(num_steps, args.batch_size)
        (params, state), info = jax.lax.scan(step, (params, state), batches)
        metrics = {
            f"{split}_accuracy": jnp.mean(MODEL.apply(params, x).argmax(-1) == y)
            for split, (x, y) in splits.items()
        }
        return params, state, {"loss": loss(params, x, y), **metrics}, info

    history, task = [], progress.add_task(name, total=args.epochs)
    key = jax.random.key(args.seed + 1)
    start = time.perf_counter()
    for _ in range(args.epochs):
        key, epoch_key = jax.random.split(key)
        params, state, metrics, info = epoch(params, state, epoch_key)
        if name == "qiaso":
            metrics["entropy"] = info.entropy
            metrics["effective_candidates"] = info.effective_candidates
        history.append(jax.tree.map(lambda v: v.tolist(), metrics))
        accuracy = history[-1]["validation_accuracy"]
        progress.update(task, advance=1, description=f"{name} {accuracy:7.2%}")
    return history, time.perf_counter() - start


@plot.style()
def draw(histories, path):
    figure = Figure(figsize=(plot.WIDTH, 5), layout="constrained")
    axes = figure.subplots(2, 2)
    for name, history in histories.items():
        epochs = range(1, len(history) + 1)
        loss = [h["loss"] for h in history]
        accuracy = [100 * h["test_accuracy"] for h in history]
        plot.curve(epochs, loss, ax=axes[0, 0], label=name)
        plot.curve(epochs, accuracy, ax=axes[0, 1], label=name)
    axes[0, 0].set(xlabel="epoch", ylabel="training loss", yscale="log")
    axes[0, 1].set(xlabel="epoch", ylabel="test accuracy (%)", ylim=(80, 100))
    axes[0, 1].legend()
    names = "entropy", "effective_candidates"
    info = SimpleNamespace(
        **{
            name: np.concatenate([h[name] for h in histories["qiaso"]])
            for name in names
        }
    )
    for ax, name in zip(axes[1], names, strict=True):
        plot.over_steps(info, name, ax=ax, linewidth=0.8)
    plot.caption(
        figure,
        "1,797 digits of scikit-learn, MLP 64-32-10; qiaso has no gradients. One seed.",
    )
    return plot.save(figure, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("output/digits"))
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=240)
    parser.add_argument("--candidates", type=int, default=200)
    parser.add_argument("--sigma", type=float, default=0.05)
    parser.add_argument("--learning-rate", type=float, default=0.03)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)

    splits = load_splits()
    num_steps = args.epochs * (len(splits["train"][0]) // args.batch_size)
    schedule = optax.cosine_decay_schedule(args.learning_rate, num_steps)
    optimizers = {
        "qiaso": qiaso_jax.qiaso(
            args.candidates,
            args.sigma,
            optimizer=optax.adam(schedule),
            key=args.seed,
        ),
        "adam": optax.with_extra_args_support(optax.adam(1e-2)),
    }
    histories, seconds = {}, {}
    with Progress() as progress:
        for name, tx in optimizers.items():
            histories[name], seconds[name] = train(tx, splits, args, progress, name)

    draw(histories, args.output / "digits")
    metrics = {
        "settings": {**vars(args), "output": str(args.output)},
        "machine": f"{os.cpu_count()} x {platform.machine()}, {jax.devices()[0]}",
        "versions": {p: version(p) for p in ("jax", "flax", "optax", "qiaso_jax")},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": seconds,
        "history": histories,
    }
    (args.output / "metrics.json").write_text(json.dumps(metrics))
    for name, uses in (("qiaso", "no gradients"), ("adam", "gradients")):
        accuracy = histories[name][-1]["test_accuracy"]
        print(
            f"{name:5} ({uses}): test accuracy {accuracy:.2%} "
            f"after {args.epochs} epochs, {seconds[name]:.1f} s"
        )
    print(f"Figure and metrics are in {args.output}.")


if __name__ == "__main__":
    main()
