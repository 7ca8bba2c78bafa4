"""A threshold and what it is held against: one verdict in words, the same for rules and for a champion's gates.

What cannot be computed never passes: a threshold that is not wanted is left out, in the open.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """One threshold's answer: its name in the YAML (`min_...` or `max_...`), whether it was met, and why in words."""

    gate: str
    passed: bool
    said: str


def judged(gate: str, threshold: float, value: float | None, missing: str = "it is undefined") -> Verdict:
    """Returns the verdict on a value; None fails, for the reason `missing`."""
    least = gate.startswith("min_")
    wanted = f"{'at least' if least else 'at most'} {threshold:g}"
    if value is None:
        return Verdict(gate, False, f"no value ({missing}); {wanted} is needed")
    passed = value >= threshold if least else value <= threshold
    return Verdict(gate, bool(passed), f"{value:.6g}; {wanted} is needed")
