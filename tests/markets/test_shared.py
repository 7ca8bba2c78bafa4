"""Bars in the object store outlive what other drivers on the same cluster do."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import ray

from drl_ray_tracking.markets.datasets import MarketSegment
from drl_ray_tracking.markets.shared import share

_OTHER_DRIVER = """
import sys
import ray
from tests.markets.test_shared import segment, share
ray.init(address=sys.argv[1], log_to_driver=False)
share(segment(), {})
"""


def segment() -> MarketSegment:
    bars = 50
    return MarketSegment(
        "X", 86_400.0 * np.arange(bars), np.linspace(1.0, 2.0, bars), np.zeros((bars, 0), np.float32), 252.0
    )


@ray.remote(max_calls=1)  # a new process each time: nothing is open there
def bars_of(shared: object) -> int:
    return len(shared.open())  # type: ignore[attr-defined]


def test_another_driver_with_the_same_bars_may_end_first(ray_session: None) -> None:
    shared = share(segment(), {})
    address = ray.get_runtime_context().gcs_address
    subprocess.run([sys.executable, "-c", _OTHER_DRIVER, address], check=True)
    assert ray.get(bars_of.remote(shared)) == 50
