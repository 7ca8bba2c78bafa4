"""What is said before anything trains of a store that does not let this sweep in, and what to do about it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.tracking.courier_status import RETRYING, CourierStatus
from drl_ray_tracking.tracking.preflight import wait_for_verdict
from drl_ray_tracking.tracking.progress import Progress
from drl_ray_tracking.tracking.remedies import remedy

URI = "http://127.0.0.1:4030"


@pytest.mark.parametrize(
    ("said", "advice"), [("401 Unauthorized", "MLFLOW_TRACKING_TOKEN"), ("403 Forbidden", "--allowed-hosts")]
)
def test_a_server_that_lets_nobody_in_is_told_with_what_to_do(
    tmp_path: Path, said: str, advice: str, caplog: pytest.LogCaptureFixture
) -> None:
    status = CourierStatus(RETRYING, said, 0, 1, 0.0, 0.0, 0.0, 0.0, Progress())
    spool: Any = SimpleNamespace(wait_for=lambda condition, timeout_s: status, directory=tmp_path)
    with pytest.raises(ConfigurationError, match=advice):
        wait_for_verdict(spool, URI, "fail")
    wait_for_verdict(spool, URI, "spool")
    assert advice in caplog.text


def test_a_port_is_no_answer() -> None:
    assert remedy("HTTPConnectionPool(host='127.0.0.1', port=4030): connection refused", URI).startswith("start")
