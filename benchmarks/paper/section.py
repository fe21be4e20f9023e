"""What a module contributes to docs/reproduction.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

from matplotlib.figure import Figure

FULL_LENGTH = "100 epochs"
"""How the protocols begin that are as long as the paper's."""

Word = Literal[
    "reproduced",
    "not reproduced",
    "reproduced by another method",
    "contradictory",
    "wrong",
    "not measured",
]


class Verdict(NamedTuple):
    """One claim of the paper, what was found, and the word for it."""

    claim: str
    found: str
    word: Word


class Section(NamedTuple):
    """A heading, Markdown, the verdicts it supports, and figures by file name."""

    title: str
    body: str
    verdicts: Sequence[Verdict] = ()
    figures: Mapping[str, Figure] = MappingProxyType({})


def judged(holds: bool, form: str, protocol: str = FULL_LENGTH) -> Word:
    """The word for a claim on QIASO that ``form`` was held to.

    What falls short under less than the paper's epochs or examples is not refuted.
    """
    if not holds:
        full = protocol.startswith(FULL_LENGTH) and "examples" not in protocol
        return "not reproduced" if full else "not measured"
    return "reproduced" if form == "faithful" else "reproduced by another method"
