"""Which checkpoint a value is credited to: the one whose weights were evaluated, not the one saved beside it."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from drl_ray_tracking import names
from drl_ray_tracking.analysis.runset import RunSet
from drl_ray_tracking.errors import DataError
from drl_ray_tracking.promotion.candidate import best_candidate
from tests.analysis.kept import METRIC, run_set


class Checkpoints:
    """A store that has a pointer to a checkpoint of run `a` at each of some steps."""

    def __init__(self, *steps: int) -> None:
        self._steps = steps

    def search_logged_models(self, experiments: Any, query: str, **paging: Any) -> Any:
        models = [
            SimpleNamespace(
                source_run_id="a",
                model_id=f"m-{step}",
                tags={names.TAG_CHECKPOINT_URI: f"/checkpoints/{step}", names.TAG_CHECKPOINT_STEP: str(step)},
            )
            for step in self._steps
        ]
        page = models if names.MODEL_POINTER in query else []
        return type("Page", (list,), {"token": None})(page)


def parallel(lag: float) -> RunSet:
    runs = run_set({}, {"a": [1.0, 9.0, 2.0]}, {"a": "w"})
    rows = [{"run_id": "a", "metric": names.EVALUATION_MARKER, "step": s, "value": s - lag} for s in (100, 200, 300)]
    histories = pd.concat([runs.histories, pd.DataFrame(rows).assign(time_ms=0)])
    both = (METRIC, names.EVALUATION_MARKER)
    return dataclasses.replace(runs, histories=histories, metrics=both, loaded=frozenset(both))


@pytest.mark.parametrize(("lag", "uri"), [(0.0, "/checkpoints/200"), (100.0, "/checkpoints/100")])
def test_the_best_value_is_credited_to_the_weights_it_is_of(lag: float, uri: str) -> None:
    client: Any = Checkpoints(100, 200, 300)
    assert best_candidate(client, "1", parallel(lag), METRIC, "max").uri == uri


def test_a_checkpoint_whose_weights_nobody_evaluated_is_none() -> None:
    client: Any = Checkpoints(300)
    assert np.isfinite(best_candidate(client, "1", parallel(0.0), METRIC, "max").value)
    with pytest.raises(DataError, match="none of the 1 trials has a checkpoint"):
        best_candidate(client, "1", parallel(100.0), METRIC, "max")
