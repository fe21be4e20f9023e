"""How every command begins and ends: its arguments, and its errors in a sentence."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import tyro

_Command = TypeVar("_Command")


class UserError(Exception):
    """What a user can put right; shown without a traceback."""


def run(
    main: Callable[[_Command], Any], command: type[_Command], description: str | None
) -> None:
    """Runs ``main`` on the arguments of the process; ends it with what that returns.

    Args:
      main: Returns the exit status; ``None`` for 0.
      command: A dataclass of the arguments.
      description: What ``--help`` says first.
    """
    try:
        sys.exit(main(tyro.cli(command, description=description)))
    except UserError as error:
        sys.exit(f"error: {error}")
