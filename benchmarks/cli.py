"""How every command begins and ends: its arguments, and its errors in a sentence."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import tyro

_Command = TypeVar("_Command")


class UserError(Exception):
    """What a user can put right; shown without a traceback."""


def run(
    main: Callable[[_Command], Any],
    command: type[_Command],
    description: str | None,
    parse: Callable[..., _Command] = tyro.cli,
) -> None:
    """Runs ``main`` on the arguments of the process; ends it with what that returns.

    What a user or the machine can put right, ``UserError`` and ``OSError``, is one
    sentence on the standard error, and the exit status 1.

    Args:
      main: Returns the exit status; ``None`` for 0.
      command: A dataclass of the arguments.
      description: What ``--help`` says first, in Markdown or reST.
      parse: Makes a ``command`` of the arguments; called as ``tyro.cli`` is.
    """
    plain = description and description.replace("``", "`")
    try:
        sys.exit(main(parse(command, prog=_typed(), description=plain)))
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")


def _typed() -> str | None:
    """The command as it was typed; ``None`` if it was not by ``python -m``."""
    module = sys.modules["__main__"].__spec__
    return module and f"python -m {module.name.removesuffix('.__main__')}"


def progress(text: str) -> None:
    """A line beside the results of a long command, on the standard error."""
    print(text, file=sys.stderr, flush=True)


def option(name: str) -> str:
    """A field of a command as it is typed."""
    return "--" + name.replace("_", "-")


def typed(module: str, command: type, settings: Mapping[str, Any]) -> str:
    """What is typed for these settings of a command, which may be read from JSON."""
    words = ["python", "-m", module]
    for field in dataclasses.fields(command):
        given, default = (
            list(map(str, value)) if isinstance(value, list | tuple) else [str(value)]
            for value in (settings[field.name], field.default)
        )
        if given != default:
            words += [option(field.name), *given]
    return shlex.join(words)


def require(
    settings: Any, wanted: str, holds: Callable[[Any], bool], *names: str
) -> None:
    """Raises ``UserError`` unless ``holds`` of these fields of ``settings``.

    Of a tuple it has to hold for each entry; ``None`` is a setting that is not made.
    ``wanted`` says the condition in words, as in "must be ``wanted``".
    """
    for name in names:
        value = getattr(settings, name)
        entries = value if isinstance(value, tuple) else (value,)
        if not all(holds(each) for each in entries if each is not None):
            raise UserError(f"{option(name)} must be {wanted}, got {value}")


def require_at_least(settings: Any, least: int, *names: str) -> None:
    """Raises ``UserError`` for a number below ``least``, alone or in a tuple."""
    require(settings, f"at least {least}", lambda number: number >= least, *names)


def require_positive(settings: Any, *names: str) -> None:
    """Raises ``UserError`` for a number that is not positive and finite."""
    require(settings, "positive", lambda number: 0 < number < float("inf"), *names)


def require_fraction(settings: Any, *names: str) -> None:
    """Raises ``UserError`` for a number that is not in (0, 1]."""
    require(settings, "in (0, 1]", lambda number: 0 < number <= 1, *names)


def require_some(settings: Any, *names: str) -> None:
    """Raises ``UserError`` for a list without an entry."""
    for name in names:
        if not getattr(settings, name):
            raise UserError(f"{option(name)} must name at least one")
