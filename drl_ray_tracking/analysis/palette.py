"""The colours of pictures and pages: Okabe and Ito's, which readers with any colour vision can tell apart."""

from __future__ import annotations

from typing import Final

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
INK: Final = "#222222"
MUTED: Final = "#6B6B6B"
FAINT: Final = "#C9C9C9"
GRID: Final = "#ECECEC"


def colour_of(index: int) -> str:
    """Returns the colour of the group at a place in the ranking; grey beyond the colours."""
    return COLOURS[index] if index < len(COLOURS) else FAINT


def faded(colour: str, opacity: float) -> str:
    """Returns a `#rrggbb` colour as `rgba(...)`."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"
