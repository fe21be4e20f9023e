"""``python -m benchmarks.coco.reference``: the best of the workshop BBOB-2009.

Leaves ``best2009.json`` in the output folder: of each function of ``bbob`` and each
target the least expected number of evaluations that any of the methods needed there,
from the data that come with COCO's package ``cocopp`` (BSD licence), which has to be
installed.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import re
import tarfile
from collections.abc import Iterable
from pathlib import Path

from benchmarks import cli
from benchmarks.coco.problems import TARGETS
from benchmarks.harness import records

DATA = "refalgs/best2009-bbob.tar.gz"


@dataclasses.dataclass(frozen=True)
class Command:
    """Stores what the best of 2009 needed."""

    output: Path = Path("benchmarks/results/coco")
    """Folder for best2009.json."""


def main(command: Command) -> None:
    """Writes it."""
    try:
        package = importlib.metadata.distribution("cocopp")
    except importlib.metadata.PackageNotFoundError as error:
        raise cli.UserError("cocopp must be installed: pip install cocopp") from error
    archive = Path(str(package.locate_file(f"cocopp/{DATA}")))
    content = {
        "command": "python -m benchmarks.coco.reference",
        "source": f"cocopp {package.version}, {DATA}",
        "evaluations": read(archive),
    }
    command.output.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content).replace("]], ", "]],\n")
    records.write_text(command.output / "best2009.json", text + "\n")


def read(archive: Path) -> dict[str, list[list[float | None]]]:
    """For each dimension, of each function, the evaluations to each of the targets."""
    found: dict[int, dict[int, list[float | None]]] = {}
    with tarfile.open(archive) as files:
        for member in files:
            named = re.search(r"_f(\d+)_d(\d+)\.dat$", member.name)
            file = files.extractfile(member) if named else None
            if named and file:
                function, dimension = map(int, named.groups())
                lines = file.read().decode().splitlines()
                found.setdefault(dimension, {})[function] = needed(lines)
    return {
        str(dimension): [each[function] for function in sorted(each)]
        for dimension, each in sorted(found.items())
    }


def needed(lines: Iterable[str]) -> list[float | None]:
    """Evaluations to each of the targets; ``None`` if no method reached it.

    Args:
      lines: evaluations and the difference that they are expected to reach, with what
        follows; comments begin with a per cent sign.
    """
    rows = [line.split()[:2] for line in lines if not line.startswith("%")]
    reached = [(float(number), float(difference)) for number, difference in rows]
    return [
        min(
            (number for number, difference in reached if difference <= 1.0001 * target),
            default=None,
        )
        for target in TARGETS
    ]


if __name__ == "__main__":
    cli.run(main, Command, __doc__)
