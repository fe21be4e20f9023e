"""What a module contributes to the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

from matplotlib.figure import Figure

FULL_LENGTH = "100 epochs"
"""How the protocols begin that are as long as the paper's."""

FORMS_IN_WORDS = (
    "Faithful: the printed algorithm and settings, qiaso(**PAPER). Working: z-scored "
    "or ranked losses, collapse to the expectation."
)
"""For the captions of figures that draw both."""

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
    """A heading, Markdown, the verdicts it supports, and figures by file name.

    Each is stored as an SVG, of this name, and as a PNG beside it.
    """

    title: str
    body: str
    verdicts: Sequence[Verdict] = ()
    figures: Mapping[str, Figure] = MappingProxyType({})


def reproduced(holds: bool, otherwise: Word = "not reproduced") -> Word:
    """The word for a claim that either holds or does not."""
    return "reproduced" if holds else otherwise


def judged(holds: bool, form: str, protocol: str = FULL_LENGTH) -> Word:
    """The word for a claim on QIASO that ``form`` was held to.

    What falls short under less than the paper's epochs or examples is not refuted.
    """
    if not holds:
        full = protocol.startswith(FULL_LENGTH) and "examples" not in protocol
        return "not reproduced" if full else "not measured"
    return "reproduced" if form == "faithful" else "reproduced by another method"


def judged_either(faithful: bool, another: bool) -> Word:
    """The word for a claim that the faithful form bears out, or another method."""
    return reproduced(
        faithful, "reproduced by another method" if another else "not reproduced"
    )


def share(part: float) -> str:
    """A share in percent, with zero and one told from what rounds to them."""
    percent = 100 * part
    if 0 < percent < 0.01:
        return "under 0.01 %"
    if 99.99 < percent < 100:
        return "over 99.99 %"
    return f"{percent:.3g} %"
