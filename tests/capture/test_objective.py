"""The objective's state table, and its way through a checkpoint."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from drl_ray_tracking.capture.objective import Objective, lookup
from drl_ray_tracking.names import OBJECTIVE_CARRIED, OBJECTIVE_FRESH, OBJECTIVE_NONE, OBJECTIVE_UNDEFINED

NAN = math.nan


@pytest.mark.parametrize(
    ("carried", "measured", "value", "expected"),
    [
        (None, False, None, (NAN, OBJECTIVE_NONE)),
        (None, False, 1.0, (NAN, OBJECTIVE_NONE)),
        (None, True, 1.5, (1.5, OBJECTIVE_FRESH)),
        (None, True, None, (NAN, OBJECTIVE_UNDEFINED)),
        ((NAN, OBJECTIVE_NONE), False, None, (NAN, OBJECTIVE_NONE)),
        ((1.5, OBJECTIVE_FRESH), False, None, (1.5, OBJECTIVE_CARRIED)),
        ((1.5, OBJECTIVE_CARRIED), False, 9.0, (1.5, OBJECTIVE_CARRIED)),
        ((1.5, OBJECTIVE_CARRIED), True, 2.0, (2.0, OBJECTIVE_FRESH)),
        ((1.5, OBJECTIVE_FRESH), True, None, (NAN, OBJECTIVE_UNDEFINED)),
        ((1.5, OBJECTIVE_FRESH), True, math.inf, (NAN, OBJECTIVE_UNDEFINED)),
        ((1.5, OBJECTIVE_FRESH), True, "good", (NAN, OBJECTIVE_UNDEFINED)),
        ((NAN, OBJECTIVE_UNDEFINED), False, None, (NAN, OBJECTIVE_CARRIED)),
        ((NAN, OBJECTIVE_UNDEFINED), True, np.float32(3.0), (3.0, OBJECTIVE_FRESH)),
    ],
)
def test_state_table(
    carried: tuple[float, float] | None, measured: bool, value: Any, expected: tuple[float, float]
) -> None:
    before = None if carried is None else Objective(*carried)
    after = Objective.next(before, measured=measured, value=value)
    assert after.state == expected[1]
    assert after.value == pytest.approx(expected[0], nan_ok=True)


@pytest.mark.parametrize("shape", [lambda packed: packed, lambda packed: [packed], lambda packed: [(0.0, 0.0), packed]])
def test_the_carry_comes_back_however_rllib_shows_it(shape: Any) -> None:
    assert Objective.unpack(shape(Objective(1.5, OBJECTIVE_FRESH).pack())) == Objective(1.5, OBJECTIVE_FRESH)


@pytest.mark.parametrize("item", [None, NAN, [], [NAN], "xy", (1.0, 2.0, 3.0)])
def test_no_carry(item: Any) -> None:
    assert Objective.unpack(item) is None


def test_lookup() -> None:
    result = {"evaluation": {"env_runners": {"x": 3}}}
    assert lookup(result, "evaluation/env_runners/x") == 3
    assert lookup(result, "evaluation/env_runners/y") is None
    assert lookup(result, "evaluation/env_runners/x/deeper") is None
