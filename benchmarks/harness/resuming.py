"""``--resume``: its defaults are the settings of the run that it continues."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import tyro

from benchmarks.cli import UserError
from benchmarks.harness.settings import Command, Experiment

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
    before = as_command(folder / "config.json")
    now = tyro.cli(command, default=before, **shown)
    check_same(
        folder,
        dataclasses.asdict(before.experiment),
        dataclasses.asdict(now.experiment),
    )
    return now


def as_command(config: Path) -> Command:
    """The command line that produced a run."""
    content = read(config)
    settings = {k: v for k, v in content["experiment"].items() if k != "data"}
    options = content.get("options", {})
    paths = {name: Path(options[name]) for name in PATHS if options.get(name)}
    try:
        experiment = Experiment(**{k: _in_python(v) for k, v in settings.items()})
        return Command(experiment, **options | paths)
    except TypeError as error:
        raise _damaged(config, error) from error


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


def options(command: Command) -> dict[str, Any]:
    """``OPTIONS`` as they are stored."""
    chosen = {name: getattr(command, name) for name in OPTIONS}
    return chosen | {n: str(chosen[n].absolute()) for n in PATHS if chosen[n]}


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


def _in_python(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _damaged(config: Path, error: Exception) -> UserError:
    return UserError(
        f"{config} is damaged or of another version ({error}); nothing was changed"
    )
