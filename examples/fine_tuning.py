"""A transformer of 5M weights moves to another text by forward passes alone.

    python examples/fine_tuning.py [--output FOLDER] [--quick]

The model predicts bytes. It is trained by Adam on sources of Python's standard library,
and then moved to the prose of the language reference that comes with Python; nothing is
downloaded. Beside each other, at equal evaluations: QIASO with low-rank candidates,
which are evaluated without being made; MeZO's recipe, two evaluations along a dense
Gaussian direction and a step of SGD at a constant rate (Malladi et al., NeurIPS 2023);
and Adam. The first two on all weights and, by ``mask=``, on the last layer alone, below
which all candidates share one forward pass.

An evaluation is one forward pass of one sequence; a forward and a backward pass of
Adam count as three. Writes ``results.json``, ``table.md`` and the figure, as SVG and
PNG.
"""

import argparse
import json
import os
import platform
import re
import sysconfig
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from pydoc_data import topics
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from rich.progress import Progress

import qiaso_jax
from qiaso_jax import plot

MODULES = (
    "argparse", "ast", "configparser", "dataclasses", "difflib", "doctest", "enum",
    "functools", "inspect", "ipaddress", "mailbox", "optparse", "pickle",
    "pickletools", "pydoc", "random", "shutil", "statistics", "subprocess", "tarfile",
    "threading", "tokenize", "traceback", "turtle", "typing",
)  # fmt: skip
LENGTH = 64
TOGETHER = 16
"""Sequences in one forward pass, for all methods: larger ones are slower on a CPU."""
POINTS = 8
"""How often a run is measured."""

NOTES = """

Losses are nats per byte of the test part, a number for each seed; settings are those of
the lowest validation loss, of four tried for each method, after a quarter of the
evaluations. An evaluation is one forward pass of one sequence of 64 bytes, and Adam's
forward and backward pass are three. Seconds are of the steps alone, without compiling
and measuring. Memory is what XLA allots to one donated step: arguments, temporaries and
results. MeZO is `qiaso(2)` here, which keeps the direction and one candidate; MeZO's
own code perturbs in place. Low rank takes SGD on all weights, Adam on the last layer.

Written by `python examples/fine_tuning.py`.
"""


class Transformer(nn.Module):
    """Predicts the next byte."""

    width: int = 288
    depth: int = 5
    heads: int = 9

    @nn.compact
    def __call__(self, tokens):
        """Logits ``[batch, length, 256]`` of bytes ``[batch, length]``."""
        x = nn.Embed(256, self.width, name="bytes")(tokens)
        x += nn.Embed(LENGTH, self.width, name="places")(jnp.arange(tokens.shape[1]))
        earlier = nn.make_causal_mask(tokens)
        for i in range(self.depth):
            attention = nn.MultiHeadDotProductAttention(self.heads)
            x += attention(nn.LayerNorm()(x), mask=earlier)
            h = nn.gelu(nn.Dense(4 * self.width, name=f"up_{i}")(nn.LayerNorm()(x)))
            x += nn.Dense(self.width, name=f"down_{i}")(h)
        return nn.Dense(256, name="head")(nn.LayerNorm()(x))


def head(params):
    """The mask of the last layer."""
    return {"params": {name: name == "head" for name in params["params"]}}


def code():
    """Sources of the standard library."""
    folder = Path(sysconfig.get_path("stdlib"))
    return b"".join((folder / f"{name}.py").read_bytes() for name in MODULES)


def prose():
    """The language reference in three parts; a paragraph is a line, and in one part."""
    paragraphs = dict.fromkeys(
        " ".join(paragraph.split())
        for name in sorted(topics.topics)
        for paragraph in re.split(r"\n\s*\n", topics.topics[name])
    )
    shuffled = np.random.default_rng(0).permutation(np.array([*paragraphs], object))
    parts = np.split(shuffled, [int(0.6 * len(shuffled)), int(0.8 * len(shuffled))])
    return ["\n".join(part).encode() for part in parts]


def sequences(text):
    """LENGTH bytes and their successors each: ``[N, LENGTH + 1]``."""
    tokens = np.frombuffer(text, np.uint8).astype(np.int32)
    return tokens[: len(tokens) // (LENGTH + 1) * (LENGTH + 1)].reshape(-1, LENGTH + 1)


def loss_of(model):
    def loss(params, tokens):
        logits = model.apply(params, tokens[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(
            logits, tokens[:, 1:]
        ).mean()

    return loss


class Method(NamedTuple):
    """A way to fine-tune.

    Attributes:
      make: ``(rate, seed) -> optimizer``. The rate is in its state, so that steps of
        all rates and seeds are one program.
      settings: what it is, but for the rate.
      rates: those that are tried.
      batch_size: sequences of a step.
      forwards: for each of them.
    """

    make: Callable[[float, int], optax.GradientTransformationExtraArgs]
    settings: dict[str, Any]
    rates: tuple[float, ...]
    batch_size: int
    forwards: int

    @property
    def evaluations(self):
        """Of one step."""
        return self.batch_size * self.forwards


def low_rank(optimizer, rates, num_candidates, batch_size, mask=None):
    def make(rate, seed):
        return qiaso_jax.qiaso(
            num_candidates,
            sigma=0.01,
            directions="low_rank",
            mask=mask,
            optimizer=optax.inject_hyperparams(optimizer)(rate),
            candidate_batch_size=max(1, TOGETHER // batch_size),
            key=seed,
        )

    settings = {"K": num_candidates, "B": batch_size}
    return Method(make, settings, rates, batch_size, num_candidates)


def mezo(rates, batch_size=TOGETHER, mask=None):
    """The step is −rate · (L₊ − L₋) / 2σ · z.

    Of two candidates ±σz with the losses L± themselves, QIASO's displacement is
    −tanh(ηΔ/2) σz, Δ = L₊ − L₋, and tanh(x) = x to a relative x²/3: below 1e-5 here.
    """
    sigma = 1e-3

    def make(rate, seed):
        return qiaso_jax.qiaso(
            2,
            sigma,
            loss_scaling=None,
            directions="gaussian",
            mask=mask,
            optimizer=optax.inject_hyperparams(optax.sgd)(rate / sigma**2),
            candidate_batch_size=1,
            key=seed,
        )

    return Method(make, {"K": 2, "B": batch_size}, rates, batch_size, 2)


def adam(rates, batch_size=TOGETHER):
    def make(rate, seed):
        del seed
        optimizer = optax.inject_hyperparams(optax.adam)(rate)

        def update(updates, state, params=None, **extra):
            del updates
            gradient = jax.grad(extra["value_fn"])(params, extra["tokens"])
            return optimizer.update(gradient, state, params)

        return optax.GradientTransformationExtraArgs(optimizer.init, update)

    return Method(make, {"B": batch_size}, rates, batch_size, 3)


def methods():
    """All that are compared, as (methods among which to choose, evaluations)."""
    every = [
        low_rank(optax.sgd, (0.3, 0.6), num_candidates, batch_size)
        for num_candidates, batch_size in ((32, 4), (128, 1))
    ]
    last, more = (
        [
            low_rank(optax.adam, (1e-3, 3e-3), num_candidates, batch_size, head)
            for num_candidates, batch_size in settings
        ]
        for settings in (((32, 4), (128, 1)), ((32, 4), (128, 4)))
    )
    return {
        "low rank": (every, 1),
        "low rank, last layer": (last, 1),
        "low rank, last layer, 10 times the evaluations": (more, 10),
        "MeZO": ([mezo((1e-4, 3e-4, 1e-3, 3e-3))], 1),
        "MeZO, last layer": ([mezo((1e-3, 3e-3, 1e-2, 3e-2), mask=head)], 1),
        "Adam": ([adam((1e-4, 3e-4, 1e-3, 3e-3))], 1),
    }


def compiled_step(method, loss, params):
    """One step, which takes the memory of what it is given over."""
    tx = method.make(1.0, 0)

    def step(params, state, tokens):
        updates, state = tx.update(None, state, params, value_fn=loss, tokens=tokens)
        return optax.apply_updates(params, updates), state

    tokens = jax.ShapeDtypeStruct((method.batch_size, LENGTH + 1), jnp.int32)
    state = jax.eval_shape(tx.init, params)
    return jax.jit(step, donate_argnums=(0, 1)).lower(params, state, tokens).compile()


def peak_bytes(compiled):
    """Arguments, temporaries and results, those counted once that share memory."""
    memory = compiled.memory_analysis()
    return (
        memory.argument_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
    )


def pretrained(model, loss, text, num_steps, progress):
    """Parameters after steps of Adam on text."""
    params = model.init(jax.random.key(0), jnp.zeros((1, LENGTH), jnp.int32))
    rate = optax.warmup_cosine_decay_schedule(0, 1e-3, num_steps // 20, num_steps)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    state, text = tx.init(params), jnp.asarray(np.frombuffer(text, np.uint8), jnp.int32)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, starts):
        tokens = text[starts[:, None] + jnp.arange(LENGTH + 1)]
        value, gradient = jax.value_and_grad(loss)(params, tokens)
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    task, random = progress.add_task("Adam on code", total=num_steps), random_of(0)
    for _ in range(num_steps):
        starts = random.integers(0, len(text) - LENGTH, TOGETHER)
        params, state, value = step(params, state, starts)
        description = f"Adam on code, loss {value:.3f}"
        progress.update(task, advance=1, description=description)
    return params


def random_of(seed):
    return np.random.default_rng(seed)


def tuned(method, step, rate, seed, params, text, evaluations, measure, points):
    """Parameters after so many evaluations, and a history of losses.

    Returns:
      The parameters, and lists of evaluations, seconds without those of measuring, and
      what ``measure(params)`` says, at the start and at ``points`` later times.
    """
    params = jax.tree.map(jnp.copy, params)
    state = method.make(rate, seed).init(params)
    random, seconds, done = random_of(seed), 0.0, 0
    history = [(0, 0.0, measure(params))]
    num_steps = max(1, evaluations // method.evaluations)
    for ends in np.linspace(0, num_steps, points + 1).astype(int)[1:]:
        start = time.perf_counter()
        for _ in range(done, ends):
            rows = random.integers(0, len(text), method.batch_size)
            params, state = step(params, state, jnp.asarray(text[rows]))
        jax.block_until_ready(params)
        seconds, done = seconds + time.perf_counter() - start, ends
        history.append((int(done) * method.evaluations, seconds, measure(params)))
    return params, history


def compared(name, candidates, evaluations, loss, params, parts, seeds, progress):
    """Chooses on the validation part, after a quarter of the evaluations, and runs."""
    train, validation, test = parts
    value = jax.jit(loss)

    def measure(params, text=validation):
        return float(value(params, text))

    trials, steps = [], [compiled_step(method, loss, params) for method in candidates]
    task = progress.add_task(name, total=4 + len(seeds))
    for method, step in zip(candidates, steps, strict=True):
        for rate in method.rates:
            _, history = tuned(
                method, step, rate, 0, params, train, evaluations // 4, measure, 1
            )
            found = np.nan_to_num(history[-1][-1], nan=np.inf)
            trials.append((found, len(trials), rate, method, step))
            progress.advance(task)
    _, _, rate, method, step = min(trials)
    histories, losses = [], []
    for seed in seeds:
        tuned_params, history = tuned(
            method, step, rate, seed, params, train, evaluations, measure, POINTS
        )
        histories.append(history)
        losses.append(measure(tuned_params, test))
        progress.advance(task)
    progress.console.print(f"{name}: test loss {np.mean(losses):.4f}")
    return {
        "settings": {**method.settings, "rate": rate},
        "trials": [
            {**each.settings, "rate": rate, "validation_loss": float(found)}
            for found, _, rate, each, _ in trials
        ],
        "peak_bytes": peak_bytes(step),
        "test_losses": losses,
        "histories": histories,
    }


def table(results, before, num_bytes):
    """All methods as Markdown."""
    lines = [
        "| method | settings | evaluations | seconds | peak memory | test loss |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
        f"| before | | 0 | 0 | | {before:.4f} |",
    ]
    for name, row in results.items():
        settings = ", ".join(f"{k} = {v:g}" for k, v in row["settings"].items())
        evaluations = row["histories"][0][-1][0]
        seconds = np.mean([history[-1][1] for history in row["histories"]])
        memory = row["peak_bytes"] / num_bytes
        losses = " / ".join(f"{loss:.4f}" for loss in row["test_losses"])
        lines.append(
            f"| {name} | {settings} | {evaluations:,} | {seconds:.1f} | "
            f"{row['peak_bytes'] / 1e6:.0f} MB = {memory:.1f} × weights | {losses} |"
        )
    return "\n".join(lines) + NOTES


@plot.style()
def draw(results, path):
    figure = Figure(figsize=(plot.WIDTH, 7.2), layout="constrained")
    axes = figure.subplots(2, 1)
    for i, label in enumerate(("evaluations (sequences)", "seconds of steps")):
        for name, row in results.items():
            mean = np.mean(row["histories"], axis=0)
            plot.curve(mean[1:, i], mean[1:, 2], ax=axes[i], label=name)
        axes[i].set(xlabel=label, xscale="log", ylabel="validation loss (nats/byte)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left")
    seeds = len(next(iter(results.values()))["histories"])
    plot.caption(
        figure,
        "A transformer moved to another text; low rank and MeZO by forward passes "
        f"alone. Mean of {seeds} seeds; Adam's gradient counts as three evaluations.",
    )
    return plot.save(figure, path)


def main(model, pretraining, evaluations, seeds, measured_on, output):
    output.mkdir(parents=True, exist_ok=True)
    loss = loss_of(model)
    train, validation, test = map(sequences, prose())
    parts = train, validation[:measured_on], test[: 2 * measured_on]
    results, start = {}, time.perf_counter()
    with Progress() as progress:
        params = pretrained(model, loss, code(), pretraining, progress)
        before = float(jax.jit(loss)(params, parts[-1]))
        for name, (candidates, times) in methods().items():
            results[name] = compared(
                name,
                candidates,
                times * evaluations,
                loss,
                params,
                parts,
                range(seeds),
                progress,
            )
    num_weights = sum(leaf.size for leaf in jax.tree.leaves(params))
    text = table(results, before, 4 * num_weights)
    content = {
        "settings": {
            "model": {k: getattr(model, k) for k in ("width", "depth", "heads")},
            "num_weights": num_weights,
            "pretraining_steps": pretraining,
            "evaluations": evaluations,
            "seeds": seeds,
            "sequences": [len(part) for part in parts],
        },
        "machine": f"{os.cpu_count()} x {platform.machine()}, {jax.devices()[0]}",
        "versions": {"python": platform.python_version()}
        | {p: version(p) for p in ("jax", "flax", "optax", "qiaso_jax")},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": time.perf_counter() - start,
        "test_loss_before": before,
        "results": results,
    }
    (output / "results.json").write_text(json.dumps(content, indent=1) + "\n")
    (output / "table.md").write_text(text)
    draw(results, output / "figure")
    print(text)
    print(f"Table, figure and results are in {output}.")
    return content


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("output/fine_tuning"))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a small model, one seed")
    args = parser.parse_args()
    if args.quick:
        main(Transformer(64, 2, 4), 100, 1_024, 1, 32, args.output)
    else:
        main(Transformer(), 500, 6_400, args.seeds, 128, args.output)
