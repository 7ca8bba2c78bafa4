"""Left-over journals: what `drl-track sync` says of one that is delivered while it looks."""

from __future__ import annotations

from pathlib import Path

import pytest

from drl_ray_tracking.tracking import leftovers


def test_a_journal_that_its_courier_has_just_delivered_is_no_error(
    isolated_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = isolated_home / "journals" / "20260101-000000-delivered"
    monkeypatch.setattr(leftovers, "journals", lambda: iter([gone]))
    said: list[str] = []
    assert leftovers.sync_leftovers(said.append)
    assert said == ["20260101-000000-delivered: its courier has just delivered it"]
