"""The examples of many devices and many processes, run as a user runs them."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[1] / "examples"


def options(output, steps, space="node"):
    return [
        *("--output", str(output), "--steps", str(steps), "--space", space),
        *("--save-every", "4", "--batch-size", "64", "--candidates", "8"),
    ]


def started(script, *arguments):
    # Compiled as quickly as the tests; the number of devices is its own.
    flags = os.environ["XLA_FLAGS"].split()
    flags = " ".join(flag for flag in flags if "device_count" not in flag)
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, str(EXAMPLES / script), *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(*processes):
    for process in processes:
        text, _ = process.communicate(timeout=200)
        assert process.returncode == 0, text


def of_one(devices, *arguments):
    finished(started("many_devices.py", "--devices", devices, *arguments))


def two(*arguments):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    together = ["--coordinator", f"localhost:{port}", "--processes", 2, "--devices", 1]
    return [
        started("multi_host.py", *arguments, *together, "--process", number)
        for number in range(2)
    ]


def losses(output):
    """The last loss of every step."""
    lines = (output / "losses.jsonl").read_text().splitlines()
    found = {line["step"]: line["loss"] for line in map(json.loads, lines)}
    return np.array([found[step] for step in sorted(found)])


@pytest.mark.parametrize("space", ["node", "weights"])
def test_two_processes_and_one_killed(space, tmp_path):
    of_one(2, *options(tmp_path / "one", 12, space))
    expected = losses(tmp_path / "one")
    assert expected.shape == (12,)
    assert np.all(np.isfinite(expected))
    finished(*two(*options(tmp_path / "two", 12, space)))
    np.testing.assert_allclose(losses(tmp_path / "two"), expected, rtol=1e-4)

    output = tmp_path / "killed"
    processes = two(*options(output, 1000, space))
    for _ in range(600):
        if (output / "checkpoints" / "4").exists():
            break
        time.sleep(0.1)
    processes[1].kill()
    for process in processes:
        process.kill()
        process.communicate()
    done = len(losses(output))
    finished(*two(*options(output, max(12, done), space)))
    np.testing.assert_allclose(losses(output)[:12], expected, rtol=1e-4)


def test_checkpoints_go_on_with_other_numbers_of_devices(tmp_path):
    of_one(1, *options(tmp_path / "whole", 12))
    for devices, steps in [(8, 4), (2, 8), (1, 12)]:
        of_one(devices, *options(tmp_path / "parts", steps))
    found, expected = losses(tmp_path / "parts"), losses(tmp_path / "whole")
    np.testing.assert_allclose(found, expected, rtol=1e-4)
