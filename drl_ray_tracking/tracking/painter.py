"""Has a run's pictures drawn by a process of its own at the lowest priority, and never waits for it.

Drawing loads a plotting library and may fail, hang or be killed for its memory: nothing but pictures is lost then.
The process is given a folder with everything to draw, talks to no store, and ends by itself.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final, Protocol

_log = logging.getLogger(__name__)
_PROGRAM: Final = "drl_ray_tracking.analysis.trial_pictures"  # run by its name, as rooms here do not import each other
_LOG: Final = "drawing.log"


class Painter(Protocol):
    """What uploads need of who draws."""

    def place(self) -> Path:
        """Returns an empty folder for what there is to draw; what was drawn before is given up."""
        ...

    def start(self) -> None:
        """Starts drawing what was put into the folder."""
        ...

    def drawn(self) -> Path | None:
        """Returns the folder with the pictures, empty where drawing failed; None while it goes on."""
        ...


class PaintingProcess:
    """The `Painter` that is a process; what it works on lies beside the journal and goes with it."""

    def __init__(self, directory: Path) -> None:
        """Takes the directory of the journal."""
        self._folder = directory / "drawing"
        self._process: subprocess.Popen[bytes] | None = None

    def place(self) -> Path:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)
        material = self._folder / "material"
        material.mkdir(parents=True)
        return material

    def start(self) -> None:
        pictures = self._folder / "pictures"
        pictures.mkdir()
        command = [sys.executable, "-m", _PROGRAM, str(self._folder / "material"), str(pictures)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with (self._folder / _LOG).open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=self._folder
            )

    def drawn(self) -> Path | None:
        code = self._process.poll() if self._process is not None else 1
        if code is None:
            return None
        if code:
            said = (self._folder / _LOG).read_text(errors="replace").strip().splitlines()
            _log.warning("the pictures are not complete: %s", said[-1] if said else f"drawing ended with code {code}")
        return self._folder / "pictures"
