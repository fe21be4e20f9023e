"""Trainings of the harness that are ended by signals, and resumed each time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import checkpoints, records

ROOT = Path(__file__).parents[2]
EPOCHS = 120
CHECKPOINT_EVERY = 4
SETTINGS = ("--dataset", "digits", "--hidden", "8", "--epochs", str(EPOCHS))


def ended(
    folder: Path, optimizer: str, end: signal.Signals, times: int, seed: int = 0
) -> dict[str, Any]:
    """A training that is ended so many times, at random moments.

    Returns:
      Beside what was done, how many epochs were computed again, and whether metrics and
      the last checkpoint are, bit for bit, those of a training that nothing disturbed.
    """
    settings = (*SETTINGS, "--optimizer", optimizer)
    options = ("--checkpoint-every", str(CHECKPOINT_EVERY))
    whole, disturbed = folder / "whole", folder / end.name
    if not whole.exists():
        _finished(_started(whole, *settings, *options))
    rng = np.random.default_rng(seed)
    again = 0
    process = _started(disturbed, *settings, *options)
    for _ in range(times):
        _wait_for_epochs(
            disturbed, process, _epochs(disturbed) + int(rng.integers(1, 9))
        )
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(end)
        process.wait()
        if process.returncode not in (-end, 128 + end):
            raise RuntimeError(f"{optimizer} was not ended by {end.name}")
        saved = checkpoints.whole_epochs(disturbed / "checkpoints")
        again += _epochs(disturbed) - max(saved, default=0)
        process = _started(disturbed, "--resume")
    _finished(process)
    return {
        "method": optimizer,
        "injected": end.name,
        "times": times,
        "epochs": EPOCHS,
        "again": again,
        "same": _result(disturbed) == _result(whole),
    }


def _started(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.train", *arguments]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [*command, "--output", str(folder)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path},
        stderr=subprocess.DEVNULL,
    )


def _finished(process: subprocess.Popen[bytes]) -> None:
    if process.wait():
        raise RuntimeError(f"{process.args} ended with {process.returncode}")


def _wait_for_epochs(
    folder: Path, process: subprocess.Popen[bytes], epochs: int
) -> None:
    while _epochs(folder) < epochs:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args} ended before its signal")
        time.sleep(0.005)


def _epochs(folder: Path) -> int:
    return len(records.read(folder / "metrics.jsonl"))


def _result(folder: Path) -> tuple[list[dict[str, Any]], str]:
    """The metrics without the times, and the digest of the last state."""
    lines = records.read(folder / "metrics.jsonl")
    history = [{k: v for k, v in line.items() if k != "timing"} for line in lines]
    about = folder / f"checkpoints/{EPOCHS}/about/metadata"
    return history, json.loads(about.read_text())["digest"]
