"""Delivers journals that earlier sweeps left on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from drl_ray_tracking.errors import JournalError
from drl_ray_tracking.home import home
from drl_ray_tracking.tracking import courier_process, courier_status
from drl_ray_tracking.tracking.journal import driver_is_alive, journals, last_sequence
from drl_ray_tracking.tracking.repair import quarantined, repair_orphan

_PATIENCE_S: Final = 10.0  # with a store that answers with passing errors


def sync_leftovers(say: Callable[[str], None]) -> bool:
    """Delivers every journal whose driver is gone; returns whether nothing is left.

    Args:
        say: takes one sentence for a person about each journal.
    """
    found = list(journals())
    if not found:
        say(f"nothing is waiting in {home()}")
    outcomes = [_contained(directory, say) for directory in found]
    return all(outcomes)


def _contained(directory: Path, say: Callable[[str], None]) -> bool:
    """Delivers one journal; whatever is wrong with it, the others are delivered all the same."""
    try:
        return _sync(directory, say)
    except Exception as error:  # noqa: BLE001 - no permission, no room, a store's own error
        say(
            f"{directory.name}: not delivered ({type(error).__name__}: {error}). Mend that and run `drl-track sync` "
            f"again; if what it holds is not needed, delete {directory}."
        )
        return False


def _sync(directory: Path, say: Callable[[str], None]) -> bool:
    if driver_is_alive(directory):
        say(f"{directory.name}: its sweep is still running, its own courier delivers")
        return True
    try:
        status = courier_status.read_status(directory)
        # Before anything is counted: while its driver is dead, this process may repair the journal.
        repair_orphan(directory, status.progress.acked if status else 0)
        waiting = last_sequence(directory) - (status.progress.acked if status else 0)
        delivered = courier_process.carry(directory, orphan_limit_s=_PATIENCE_S)
    except JournalError as error:
        say(f"{directory.name}: {error}. If what it holds is not needed, delete {directory}.")
        return False
    except FileNotFoundError:
        if directory.exists():
            raise
        say(f"{directory.name}: its courier has just delivered it")
        return True
    status = courier_status.read_status(directory)
    if not delivered:
        reason = status.message if status is not None and status.message else "another courier is at it"
        say(f"{directory.name}: {waiting} events still wait ({reason})")
        return False
    if damaged := quarantined(directory):
        lost = status.progress.lost if status is not None else 0
        say(
            f"{directory.name}: {waiting} events delivered, {lost or 'an unknown number'} lost: the journal was "
            f"damaged. {', '.join(path.name for path in damaged)} in {directory} is what could not be read: delete the "
            "directory if it is not needed."
        )
        return True
    if status is not None and status.progress.refused:
        say(
            f"{directory.name}: MLflow refuses {len(status.progress.refused)} of its runs for good "
            f"({next(iter(status.progress.refused.values()))}). What came after that is left out of them for good; "
            "where Tune's own files have it, `drl-track import-tune` adds it once the runs are restored. Delete "
            f"{directory}, nothing in it is delivered any more."
        )
        return True
    if status is not None and status.progress.lost:
        say(
            f"{directory.name}: {waiting} events delivered, {status.progress.lost} lost: "
            f"{directory / courier_status.LOG_FILE} says why. Delete the directory if it is not needed."
        )
        return True
    say(f"{directory.name}: {waiting} events delivered")
    return True
