"""``--resume``: its defaults are the settings of the run that it continues."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import tyro

from benchmarks.cli import UserError
from benchmarks.harness import records
from benchmarks.harness.settings import Command, from_stored

PATHS = ("data_dir", "cache_dir")
OPTIONS = ("checkpoint_every", "tensorboard", *PATHS)
"""What a resumed run does as before, unless it is told otherwise."""


@dataclasses.dataclass(frozen=True)
class Place:
    """What has to be known of a command line before its defaults are."""

    output: Path | None = None
    resume: bool = False


def parse(command: type[Command], **shown: Any) -> Command:
    """The command line, as ``tyro.cli`` reads it.

    Raises:
      UserError: there is no run to resume, or it has other settings.
    """
    place, _ = tyro.cli(Place, return_unknown_args=True, add_help=False)
    if not place.resume:
        return tyro.cli(command, **shown)
    folder = place.output or tyro.cli(command, **shown).folder
    before = as_command(folder)
    now = tyro.cli(command, default=before, **shown)
    check_same(
        folder,
        dataclasses.asdict(before.experiment),
        dataclasses.asdict(now.experiment),
    )
    return now


def as_command(folder: Path) -> Command:
    """The command line that produced a run."""
    settings = read(folder / "config.json")["experiment"]
    path = folder / "options.json"
    try:
        stored = json.loads(path.read_text()) if path.exists() else {}
        paths = {name: Path(stored[name]) for name in PATHS if stored.get(name)}
        options: dict[str, Any] = stored | paths
        return Command(from_stored(settings), **options)
    except (TypeError, ValueError, AttributeError) as error:
        raise _damaged(folder, error) from error


def read(config: Path) -> dict[str, Any]:
    """What ``config.json`` says of a run."""
    try:
        content = json.loads(config.read_text())
        content["experiment"]["data"]
    except FileNotFoundError:
        raise UserError(f"nothing to resume: {config.parent} holds no run") from None
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(config, error) from error
    return content


def write_options(folder: Path, command: Command) -> None:
    """Stores ``OPTIONS``, apart from what decides the result."""
    chosen = {name: getattr(command, name) for name in OPTIONS}
    paths = {name: str(chosen[name].absolute()) for name in PATHS if chosen[name]}
    records.write_json(folder / "options.json", chosen | paths)


def check_same(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuses to resume a run with other settings, and names them."""
    differences = [
        f"{name} (was {before.get(name)}, now {now.get(name)})"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
    if differences:
        raise UserError(
            f"cannot resume {folder} with other settings: " + ", ".join(differences)
        )


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path} is damaged or of another version ({error}); nothing was changed"
    )
