"""System metrics: the switch, the bound on points, what a node is called, and what its samples are made of."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.tracking import system_metrics
from drl_ray_tracking.tracking.node_sample import NodeSampler, memory_bytes, parse_gpus
from drl_ray_tracking.tracking.system_metrics import (
    DEFAULT_INTERVAL_S,
    SAMPLES_PER_PACE,
    SystemMetrics,
    checked_interval,
    node_labels,
    paces,
)


def test_the_switch() -> None:
    assert checked_interval(False) is None
    assert checked_interval(True) == DEFAULT_INTERVAL_S
    assert checked_interval(2.5) == 2.5


@pytest.mark.parametrize("given", [0, 0.5, -1.0, float("nan"), "10"])
def test_what_is_no_pace_is_refused_with_what_is_allowed(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="must be true, false, or the seconds between samples, 1 or more"):
        checked_interval(given)


@pytest.mark.parametrize(("hours", "most"), [(1, SAMPLES_PER_PACE), (24, 1700), (24 * 7, 3000), (24 * 365, 5000)])
def test_however_long_a_sweep_runs_its_points_stay_few(hours: int, most: int) -> None:
    passed, samples = 0.0, 0
    for pause in paces(DEFAULT_INTERVAL_S):
        passed += pause
        if passed > hours * 3600:
            break
        samples += 1
    assert most / 2 < samples <= most


def test_paces_only_grow() -> None:
    first = list(islice(paces(1.0), 3 * SAMPLES_PER_PACE))
    assert first == sorted(first)
    assert set(first) == {1.0, 2.0, 4.0}


def test_nodes_are_called_by_their_hosts_and_told_apart_where_a_host_has_several() -> None:
    hosts = {"aaaaaaaa": "one", "bbbbbbbb": "two", "cccccccc": "two"}
    alive = {node: {"NodeManagerHostname": host} for node, host in hosts.items()}
    assert node_labels(alive) == {"aaaaaaaa": "one", "bbbbbbbb": "two-bbbbbb", "cccccccc": "two-cccccc"}


def test_a_sample_of_this_machine() -> None:
    sample = NodeSampler().sample()
    assert {"cpu_percent", "memory_percent", "memory_used_gb", "disk_percent"} <= set(sample)
    assert all(0 <= value <= 100 for key, value in sample.items() if key.endswith("percent"))
    assert sample["memory_used_gb"] > 0


def test_gpus_that_tell_only_part_of_it() -> None:
    said = "0, 35, 1024, 4096\n1, [N/A], 0, 4096\n2, 90, [N/A], [N/A]\nno driver\n"
    assert parse_gpus(said) == {
        "gpu0_percent": 35.0,
        "gpu0_memory_percent": 25.0,
        "gpu1_memory_percent": 0.0,
        "gpu2_percent": 90.0,
    }


def test_a_containers_memory_is_its_own_and_its_cache_is_free(tmp_path: Path) -> None:
    machine = memory_bytes(tmp_path)
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("600000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 200000\n")
    assert memory_bytes(tmp_path) == (400_000.0, 1_000_000.0)
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_bytes(tmp_path)[1] == machine[1]


def test_a_sample_that_comes_too_late_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    metrics = SystemMetrics(lambda step, values: written.append(step), 1.0)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "nodes", list)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "n"))
    monkeypatch.setattr(system_metrics, "object_store_percent", lambda alive: {})
    metrics._sample()
    metrics.stop()
    metrics._sample()
    assert len(written) == 1
