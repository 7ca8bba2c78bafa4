"""Waiting for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

PATIENCE: Final = 3.0  # deadlines were measured on a quiet machine; one that many share may be so much slower


def wait_until(condition: Callable[[], Any], *, timeout_s: float, what: str) -> Any:
    """Polls until a condition holds and returns what it returned; fails with `what` after the deadline."""
    deadline = time.monotonic() + PATIENCE * timeout_s
    while True:
        outcome = condition()
        if outcome:
            return outcome
        assert time.monotonic() < deadline, f"not within {PATIENCE * timeout_s} s: {what}"
        time.sleep(0.05)
