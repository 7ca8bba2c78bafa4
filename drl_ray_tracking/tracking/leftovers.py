"""Delivers journals that earlier sweeps left on this machine."""

from __future__ import annotations

from collections.abc import Callable

from drl_ray_tracking.tracking import courier
from drl_ray_tracking.tracking.journal import driver_is_alive, home, journals, last_sequence


def sync_leftovers(say: Callable[[str], None]) -> bool:
    """Delivers every journal whose driver is gone; returns whether nothing is left.

    Args:
        say: takes one sentence for a person about each journal.
    """
    found = list(journals())
    if not found:
        say(f"nothing is waiting in {home()}")
    complete = True
    for directory in found:
        if driver_is_alive(directory):
            say(f"{directory.name}: its sweep is still running, its own courier delivers")
            continue
        status = courier.read_status(directory)
        waiting = last_sequence(directory) - (status.progress.acked if status else 0)
        done = courier.carry(directory, orphan_limit_s=0.0)
        if done:
            say(f"{directory.name}: {waiting} events delivered")
            continue
        complete = False
        status = courier.read_status(directory)
        reason = status.message if status is not None and status.message else "another courier is at it"
        say(f"{directory.name}: {waiting} events still wait ({reason})")
    return complete
