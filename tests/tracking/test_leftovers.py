"""Left-over journals: what `drl-track sync` says of one that is delivered while it looks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from drl_ray_tracking.tracking import courier_process, leftovers
from tests.tracking.journals import opening, sweep
from tests.tracking.test_courier import left_behind


def test_a_journal_that_its_courier_has_just_delivered_is_no_error(
    isolated_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = isolated_home / "journals" / "20260101-000000-delivered"
    monkeypatch.setattr(leftovers, "journals", lambda: iter([gone]))
    said: list[str] = []
    assert leftovers.sync_leftovers(said.append)
    assert said == ["20260101-000000-delivered: its courier has just delivered it"]


@pytest.mark.mlflow
def test_one_that_cannot_be_handled_keeps_none_of_the_others_back(
    tmp_path: Path, sqlite_store: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "_PATIENCE_S", 0.0)
    gone = left_behind([opening(f"sqlite:///{tmp_path}/gone/mlflow.db"), sweep("gone")])
    forbidden = left_behind([opening(sqlite_store()), sweep("forbidden")])
    fine = left_behind([opening(sqlite_store()), sweep("fine")])
    carry = courier_process.carry

    def refused(directory: Path, *, orphan_limit_s: float) -> bool:
        if directory == forbidden:
            raise PermissionError(13, "Permission denied", str(directory / "courier.lock"))
        return carry(directory, orphan_limit_s=orphan_limit_s)

    monkeypatch.setattr(courier_process, "carry", refused)
    said: list[str] = []
    assert not leftovers.sync_leftovers(said.append)
    about = {directory: next(line for line in said if line.startswith(directory.name)) for directory in (gone, fine)}
    assert "2 events still wait" in about[gone] and f"{tmp_path}/gone/mlflow.db is out of reach" in about[gone]
    assert "2 events delivered" in about[fine]
    (denied,) = [line for line in said if line.startswith(forbidden.name)]
    assert "Permission denied" in denied and f"delete {forbidden}" in denied
