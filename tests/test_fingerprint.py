"""The hash of a configuration: the same in every process, blind to seed and data, awake to hyperparameters."""

from __future__ import annotations

import enum
import functools
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drl_ray_tracking.fingerprint import config_hash, jsonable


class Kind(enum.Enum):
    A = 1


@dataclass(frozen=True)
class Fee:
    rate: float = 0.001


@dataclass(frozen=True)
class Tax:
    rate: float = 0.001


BASE: dict[str, Any] = {
    "lr": 1e-3,
    "model": {"fcnet_hiddens": [64, 64], "log_std_clip_param": 20},
    "env": "tests.SomeEnv",
    "env_config": {"window": 250, "fee": Fee(), "symbols": ["A"], "seed": 1},
    "seed": 1,
    "num_env_runners": 2,
    "callbacks": lambda: None,
}


def hashed(**changes: Any) -> str:
    return config_hash(jsonable({**BASE, **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 7},
        {"num_env_runners": 8},
        {"num_gpus": 1},
        {"log_level": "DEBUG"},
        {"env_config": {**BASE["env_config"], "seed": 9, "symbols": ["B"]}},
        {"env_config": {**BASE["env_config"], "fold": 3, "data_path": "/elsewhere"}},
    ],
)
def test_seed_data_and_resources_change_nothing(changes: dict[str, Any]) -> None:
    assert hashed(**changes) == hashed()


@pytest.mark.parametrize(
    "changes",
    [
        {"lr": 2e-3},
        {"model": {"fcnet_hiddens": [64], "log_std_clip_param": 20}},
        {"model": {"fcnet_hiddens": [64, 64], "log_std_clip_param": 5}},
        {"env_config": {**BASE["env_config"], "window": 100}},
        {"env_config": {**BASE["env_config"], "fee": Tax()}},
        {"weights": b"one"},
    ],
)
def test_a_hyperparameter_changes_it(changes: dict[str, Any]) -> None:
    assert hashed(**changes) != hashed()


def test_it_is_the_same_in_another_process() -> None:
    code = (
        "from tests.test_fingerprint import BASE, jsonable, config_hash;"
        "import functools, numpy as np;"
        "print(config_hash(jsonable({**BASE, 's': {'b', 'a', 'c'}, 'f': functools.partial(print, 1),"
        " 'o': np.array([{}, print], dtype=object), 'k': {print: 1}})))"
    )
    outcomes = set()
    for salt in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": salt}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        outcomes.add(done.stdout.strip())
    assert len(outcomes) == 1
    assert len(outcomes.pop()) == 12


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.floats(allow_nan=False) | st.booleans()))
def test_the_order_of_keys_does_not_matter(config: dict[str, Any]) -> None:
    backwards = dict(reversed(config.items()))
    assert config_hash(jsonable(config)) == config_hash(jsonable(backwards))


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Kind.A, "Kind.A"),
        (float("nan"), "nan"),
        ({"b", "a"}, ["a", "b"]),
        (Path("/a/b"), "/a/b"),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (Fee, f"{__name__}:Fee"),
        (Fee(), {"__type__": "Fee", "rate": 0.001}),
        (functools.partial(Fee, rate=1), {"partial": f"{__name__}:Fee", "args": [], "keywords": {"rate": 1}}),
        (object(), "builtins:object"),
        ((1, (2,)), [1, [2]]),
        ({1: "x"}, {"1": "x"}),
        (np.array([print], dtype=object), ["builtins:print"]),
    ],
)
def test_what_things_become(value: Any, plain: Any) -> None:
    assert jsonable(value) == plain
    json.dumps(jsonable(value), allow_nan=False)


def test_arrays_become_shape_and_digest() -> None:
    one, two = jsonable(np.zeros(3)), jsonable(np.ones(3))
    assert one["shape"] == [3]
    assert one != two
