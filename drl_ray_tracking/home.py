"""Where this package keeps what is its own on a machine: journals that wait for delivery, copies of what was read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

HOME_VARIABLE: Final = "DRL_TRACK_HOME"


def home() -> Path:
    """Returns the directory of everything kept on this machine: `$DRL_TRACK_HOME`, else `~/.drl_track`."""
    given = os.environ.get(HOME_VARIABLE)
    return Path(given).expanduser().resolve() if given else Path.home() / ".drl_track"
