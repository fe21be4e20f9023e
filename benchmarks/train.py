"""``python -m benchmarks.train``: one network, one dataset, one optimizer.

Leaves ``config.json``, ``options.json``, ``metrics.jsonl``, ``curves.svg`` and
``curves.png`` in the output folder, and the newest checkpoints beside them, from which
``--resume --output <folder>`` continues bit for bit, with the settings stored there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from benchmarks import cli
from benchmarks.cli import UserError, require_at_least
from benchmarks.harness import (
    data,
    interruption,
    pipeline,
    plotting,
    records,
    resuming,
)
from benchmarks.harness.checkpoints import Checkpoints
from benchmarks.harness.display import Display, Show, event_files
from benchmarks.harness.interface import State
from benchmarks.harness.loop import Program, compile_program
from benchmarks.harness.settings import Command, resolved


def main(command: Command) -> int:
    """Runs ``command``; returns the exit status of the process."""
    return run(command, Console(stderr=True, soft_wrap=True))


def run(command: Command, console: Console) -> int:
    """Trains; raises ``UserError`` for what a user can put right."""
    require_at_least(command, 1, "checkpoint_every")
    experiment = resolved(command.experiment)
    folder = command.folder
    metrics = folder / "metrics.jsonl"
    config = folder / "config.json"
    if not command.resume and config.exists():
        raise UserError(f"{folder} holds a run: pass --resume, or another --output")
    dataset = data.load(experiment.dataset, command.data_dir, command.cache_dir)
    identity = dataclasses.asdict(experiment) | {"data": dataset.fingerprint}
    if command.resume:
        stored = resuming.read(config)["experiment"]
        before = dataclasses.asdict(resuming.as_command(folder).experiment)
        resuming.check_same(folder, before | {"data": stored["data"]}, identity)
        identity = stored  # which its checkpoints have too
    identity = json.loads(json.dumps(identity))  # as it will be read back

    splits = pipeline.split(dataset, experiment.validation, experiment.limit)
    with console.status("compiling"):
        program = compile_program(experiment, splits)
    folder.mkdir(parents=True, exist_ok=True)
    if not command.resume:
        about = {
            "num_params": program.num_params,
            "epochs_within_budget": program.epochs,
            "sample_forwards_per_epoch": program.sample_forwards_per_epoch,
            "compile_seconds": round(program.compile_seconds, 2),
        }
        resuming.write_options(folder, command)
        records.write_json(
            config, {"experiment": identity} | about | records.provenance()
        )

    title = f"{experiment.dataset}, {experiment.network}, {experiment.optimizer}"
    with contextlib.ExitStack() as stack:
        # Drawn whatever ends the run, from what is on disk.
        stack.callback(_draw, folder, plotting.protocol(identity))
        checkpoints = stack.enter_context(Checkpoints(folder / "checkpoints", identity))
        state, done = program.state, 0
        if command.resume:
            state, done = _restore(checkpoints, program.state, metrics, console)
        heard = stack.enter_context(interruption.deferred())
        display = stack.enter_context(Display(console, title, program, done))
        shows: list[Show] = [display.show]
        if command.tensorboard:
            shows.append(stack.enter_context(event_files(folder, done)))
        for epoch in range(done + 1, program.epochs + 1):
            start = time.perf_counter()
            following, loss = program.epoch(state, epoch)
            if not heard.wait(loss):
                checkpoints.save(epoch - 1, state)
                checkpoints.finish()
                display.stop()
                return _stopped(console, heard, epoch, folder)
            seconds = time.perf_counter() - start
            state = following
            record = measure(program, state, epoch, loss, seconds)
            records.append(metrics, record)
            for show in shows:
                show(record)
            if epoch % command.checkpoint_every == 0 or epoch == program.epochs:
                checkpoints.save(epoch, state)
        checkpoints.finish()
    _summarise(console, folder, records.read(metrics))
    return 0


def measure(
    program: Program, state: State, epoch: int, loss: jax.Array, seconds: float
) -> dict[str, Any]:
    """The line of metrics of an epoch; raises ``UserError`` where one is not finite."""
    measured = {"train_loss": loss} | program.evaluate(state)
    record: dict[str, Any] = {
        "epoch": epoch,
        "sample_forwards": program.sample_forwards_per_epoch * epoch,
    }
    record |= {name: np.asarray(v).tolist() for name, v in measured.items()}
    bad = records.non_finite(record)
    if bad:
        seeds = [i for i, x in enumerate(record[bad[0]]) if not np.isfinite(x)]
        raise UserError(
            f"{bad[0].replace('_', ' ')} is not finite in epoch {epoch} (seeds {seeds})"
            ": the run diverged or the data are damaged; lower --learning-rate or "
            "--sigma. Metrics and checkpoints of the epochs before are kept"
        )
    record["timing"] = {
        "seconds": round(seconds, 4),
        "examples_per_second": round(
            len(record["train_loss"]) * program.examples_per_epoch / seconds
        ),
    }
    return record


def _restore(
    checkpoints: Checkpoints, initial: State, metrics: Path, console: Console
) -> tuple[State, int]:
    found = checkpoints.restore(initial, lambda text: console.print(text, markup=False))
    if found is None:
        console.print("no usable checkpoint: starting from the first epoch")
        records.truncate(metrics, 0)
        return initial, 0
    epoch, state = found
    # Epochs after the checkpoint are computed again, with the same result.
    records.truncate(metrics, epoch)
    console.print(f"resumed after epoch {epoch}")
    return state, epoch


def _stopped(
    console: Console, heard: interruption.Interruption, epoch: int, folder: Path
) -> int:
    assert heard.signal is not None
    console.print(
        f"stopped by {heard.signal.name} in epoch {epoch}; epoch {epoch - 1} is saved: "
        f"continue with --resume --output {folder}",
        markup=False,
        highlight=False,
    )
    return 128 + heard.signal


def _draw(folder: Path, protocol: str) -> None:
    history = records.read(folder / "metrics.jsonl")
    # The disk may be full: the reason for stopping is what a user has to see.
    with contextlib.suppress(OSError):
        if history:
            plotting.write_curves(folder / "curves", history, protocol)


def _summarise(console: Console, folder: Path, history: list[dict[str, Any]]) -> None:
    last = history[-1]
    accuracy = 100 * np.array(last["test_accuracy"])
    seconds = sum(record["timing"]["seconds"] for record in history)
    seeds = ", ".join(f"{value:.2f}" for value in accuracy)
    console.print(
        f"test accuracy after {last['epoch']} epochs: {accuracy.mean():.2f} % "
        f"(seeds: {seeds}), {last['sample_forwards']:,.0f} sample-forwards per seed, "
        f"{seconds:.1f} s of training; written to {folder}",
        highlight=False,
    )


def _to_the_end(command: Command) -> int:
    status = main(command)
    if status >= 128:
        # An ordinary exit would wait for the epoch that was given up.
        os._exit(status)
    return status


if __name__ == "__main__":
    cli.run(_to_the_end, Command, __doc__, parse=resuming.parse)
