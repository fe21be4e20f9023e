"""The files a run leaves: one line of metrics per epoch, and what produced them."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import math
import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from benchmarks.cli import UserError

PACKAGES = ("qiaso-jax", "jax", "jaxlib", "flax", "optax", "evosax", "numpy")


def append(path: Path, record: dict[str, Any]) -> None:
    """Adds one line and waits until the disk has it."""
    line = json.dumps(record, allow_nan=False)
    with path.open("a") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> list[dict[str, Any]]:
    """All whole lines; a last one torn by a crash is left out."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def truncate(path: Path, epoch: int) -> None:
    """Keeps the lines up to ``epoch``, which must all be there."""
    kept = [record for record in read(path) if record["epoch"] <= epoch]
    if [record["epoch"] for record in kept] != list(range(1, epoch + 1)):
        raise UserError(
            f"{path} does not hold every epoch up to the checkpoint's, {epoch}; put "
            "the file back, or start again in another folder"
        )
    write_text(path, "".join(json.dumps(record) + "\n" for record in kept))


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes the whole file or nothing."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes the whole file or nothing."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_page(
    folder: Path, content: dict[str, Any], page: Callable[[dict[str, Any]], str]
) -> None:
    """``results.json``, and ``table.md``, which follows from it, on the screen, too."""
    write_json(folder / "results.json", content)
    text = page(content)
    write_text(folder / "table.md", text)
    print(text)


def non_finite(record: dict[str, Any]) -> list[str]:
    """The names of the numbers in ``record`` that JSON cannot hold."""
    return [
        name
        for name, value in record.items()
        if isinstance(value, list) and not all(math.isfinite(x) for x in value)
    ]


def provenance() -> dict[str, Any]:
    """Versions, machine, revision and date."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "revision": _revision(),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
        "machine": {
            "system": platform.platform(),
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "device": jax.devices()[0].device_kind,
            "backend": jax.default_backend(),
        },
    }


def _revision() -> str | None:
    """The git revision of this source tree, marked where files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        result = subprocess.run(
            command,
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor()
