"""What trials attach to their runs by `log_artifact`, sent while they run: each file once, and again when it changed.

The trial leaves its files in its storage; nobody tells the driver. They are looked for now and then, and once more
when the trial has ended. What was sent is remembered by this process only: after a restart it is sent again.
"""

from __future__ import annotations

from pathlib import Path

from drl_ray_tracking.tracking.storage import Stamp, copy_file, list_files


class OwnFiles:
    """Remembers which files of which trial were sent, as they were."""

    def __init__(self) -> None:
        self._sent: dict[str, dict[str, Stamp]] = {}

    def fetch(self, trial: str, source: str, scratch: Path) -> tuple[Path, dict[str, Stamp]] | None:
        """Brings what has not been sent yet; None where there is nothing.

        Args:
            trial: whose files.
            source: their folder, a path or an address.
            scratch: where they are brought.

        Returns:
            A folder with them, and what to tell `sent` once they have arrived.
        """
        known = self._sent.get(trial, {})
        new = {path: stamp for path, stamp in list_files(source).items() if known.get(path) != stamp}
        if not new:
            return None
        target = scratch / "own"
        for path in new:
            copy_file(source, path, target / path)
        return target, new

    def sent(self, trial: str, files: dict[str, Stamp]) -> None:
        """Takes note that files have arrived."""
        self._sent.setdefault(trial, {}).update(files)

    def forget(self, trial: str) -> None:
        """Forgets a trial that has ended."""
        self._sent.pop(trial, None)
