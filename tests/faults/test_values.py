"""Faults in what is logged: F14 and F15."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest

from drl_ray_tracking import names
from drl_ray_tracking.trials.parameters import LONGEST_PARAM
from tests.faults import proxy as faults
from tests.faults.conftest import Drive, wait_until_delivered
from tests.faults.delivered import Store, assert_delivered
from tests.faults.proxy import Proxy
from tests.servers import Server

pytestmark = [pytest.mark.faults, pytest.mark.mlflow]


def test_f14_nan_and_infinity_are_counted_and_never_sent(drive: Drive, store: Store, server: Server) -> None:
    metrics = {"nan": math.nan, "up": math.inf, "deep": {"down": -math.inf}, "tiny": 5e-324, "huge": 1.7e308}
    given = drive(server.address, metrics=metrics).finish()
    wait_until_delivered()
    assert given.delivered
    assert given.trials["a"].non_finite == given.trials["a"].results
    assert_delivered(given, store)
    latest = store.run_of("a").data.metrics
    assert latest["tracker/non_finite_values"] == 3.0
    assert (latest["tiny"], latest["huge"]) == (5e-324, 1.7e308)
    assert not {"nan", "up"} & set(latest)


def test_f15_names_that_mlflow_refuses(drive: Drive, store: Store, server: Server) -> None:
    plain = ["a@b", "f(x), y=1", "../up", "/root", "a//b", " outer ", "", "größe/日本", "tab\tnew\nline", "🙂"]
    hostile = [*plain, "x" * 400]
    metrics = {name: float(number) for number, name in enumerate(hostile)}
    given = drive(server.address, metrics=metrics, tags={"t@g": "ü", "empty": "", "long": "x" * 9_000}).finish()
    wait_until_delivered()
    assert given.delivered
    assert_delivered(given, store)
    run = store.run_of("a")
    for name in hostile:
        assert run.data.metrics[names.legal_metric_name(name)] == metrics[name]
    readable = {names.original_metric_name(key) for key in run.data.metrics}
    assert set(plain) <= readable
    assert run.data.tags["t_x40_g"] == "ü"


def test_f15_ten_thousand_parameters_and_half_a_megabyte_in_one_past_failing_requests(
    drive: Drive, store: Store, proxy: Proxy, tmp_path: Path
) -> None:
    proxy.fault = faults.failing(random.Random(0), 0.3)
    config = {"many": {f"p{number}": number for number in range(10_000)}, "long": "lang " * 100_000, "größe": "日本"}
    given = drive(proxy.address, trials=("a",), config=config).finish()
    wait_until_delivered()
    assert_delivered(given, store)
    run = store.run_of("a")
    assert len(run.data.params) == 10_003
    assert run.data.params["many/p9999"] == "9999"
    assert run.data.params[names.legal_metric_name("größe")] == "日本"
    assert len(run.data.params["long"]) <= LONGEST_PARAM + 30
    assert "sha256:" in run.data.params["long"]
    whole = Path(store.client.download_artifacts(run.info.run_id, names.CONFIG_ARTIFACT, str(tmp_path)))
    assert json.loads(whole.read_text()) == {"lr": 0.1, **config}


@pytest.mark.parametrize("poison", ["\ud800", "\x00", "\u2028", "﷽" * 3_000])
def test_f15_texts_that_no_store_takes_hold_nothing_up(drive: Drive, store: Store, server: Server, poison: str) -> None:
    given = drive(server.address, trials=("a",), config={"poison": poison}, tags={"poison": poison}).finish()
    wait_until_delivered()
    assert_delivered(given, store)
