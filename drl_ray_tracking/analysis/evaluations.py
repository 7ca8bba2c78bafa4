"""Which evaluation of a run's series a value of a metric is of, and which of its bars the metric measures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from drl_ray_tracking import names
from drl_ray_tracking.analysis.equity import bar_times, evaluation_at
from drl_ray_tracking.analysis.runset import RunSet, is_evaluated
from drl_ray_tracking.errors import DataError

_EVALUATION: Final = ["iteration", "step"]
_TOLD_APART_BY: Final = ("symbol", "window", "timestamp", "price", "equity", "bar")


def weights_step(runs: RunSet, run_id: str, step: int) -> int:
    """Returns the env steps of the weights that were scored in a run's result at an env step.

    A point stands at the env steps of its result; with parallel evaluation its evaluation is of the weights before
    that. Where the run does not say which weights were scored, they are taken to be those at the step.
    """
    marker = runs.evaluation_marker
    if marker is None:
        return step
    if marker not in runs.loaded:  # what is read now need not be read of every run
        runs = replace(runs, runs=runs.runs.loc[[run_id]])
    scored = runs.run_history(marker, run_id).dropna()
    return int(scored.loc[step]) if step in scored.index else step


def values_by_weights(runs: RunSet, metric: str, run_id: str) -> pd.Series[float]:
    """Returns a run's defined values of a metric by the env steps of the weights that they are of; index `step`.

    A training metric, and one of a run that does not say which weights were scored, is taken at its own steps.
    """
    values, marker = runs.run_history(metric, run_id).dropna(), runs.evaluation_marker
    if marker is None or not is_evaluated(metric):
        return values
    own = pd.Series(values.index, index=values.index, dtype="float64")
    scored = runs.run_history(marker, run_id).reindex(values.index).fillna(own)
    values = values.set_axis(pd.Index(scored.astype("int64"), name="step"))
    return values[~values.index.duplicated(keep="last")]


def evaluation_of(runs: RunSet, metric: str, run_id: str, step: int) -> pd.DataFrame:
    """Returns the bars of the evaluation that a run's value of a metric at an env step is of.

    A training metric is of no evaluation: the last one until then is taken, or the first there is.

    Raises:
        DataError: the run kept no series, or none of that very evaluation.
    """
    series = runs.series(run_id)
    scored = weights_step(runs, run_id, step)
    if is_evaluated(metric) or series.empty:
        return evaluation_at(series, scored)
    before = series.loc[series["step"] <= scored, "step"]
    return evaluation_at(series, int(before.max() if len(before) else series["step"].min()))


def judged_bars(series: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Returns the bars of a series that a metric measures, each once.

    Those of the agent and the symbol that it names; passes that repeat another are left out.

    Args:
        series: of one or more evaluations, columns as `RunSet.series` describes them.
        metric: MLflow name or Tune path.

    Raises:
        DataError: several agents have bars in it, and the metric is of none of them: they share a market, whose bars
            count once.
    """
    return _once(_of_one_symbol(_of_one_agent(series, metric), metric))


def _of_one_agent(series: pd.DataFrame, metric: str) -> pd.DataFrame:
    if "agent" not in series:
        return series
    owners = series["agent"].fillna("").astype(str)
    agents = sorted(set(owners.unique()) - {""})
    if len(agents) < 2:
        return series
    named = _named(metric, "agent", agents)
    if len(named) != 1:
        raise DataError(
            f"its bars are those of {len(agents)} agents on one market ({', '.join(agents[:5])}), and {metric} is of "
            f"none of them alone: compare on a metric of one agent, such as {_part('agent', agents[0])}trading/sharpe"
        )
    return series.loc[owners == named[0], :]


def _of_one_symbol(series: pd.DataFrame, metric: str) -> pd.DataFrame:
    if "symbol" not in series or "/by_symbol/" not in metric:
        return series
    symbols = series["symbol"].astype(str)
    named = _named(metric, "trading/by_symbol", symbols.unique())
    return series.loc[symbols == named[0], :] if named else series


def _named(metric: str, kind: str, among: Iterable[str]) -> list[str]:
    published = names.mlflow_name(metric)
    return [one for one in among if f"/{_part(kind, one).removeprefix('eval/')}" in published]


def _part(kind: str, name: str) -> str:
    """Returns the beginning of a metric's name, up to what it is of: a slash in that would be another part."""
    return names.legal_metric_name("/".join(["eval", kind, name.replace("/", "-")])) + "/"


def _once(series: pd.DataFrame) -> pd.DataFrame:
    """Leaves out episodes that repeat an earlier one of their evaluation bar by bar."""
    if not (series["episode"] != series["episode"].iloc[:1].max()).any():
        return series
    told = [column for column in _TOLD_APART_BY if column in series]
    hashes = pd.util.hash_pandas_object(series[told], index=False)
    keys = [series[column] for column in (*_EVALUATION, "episode")]
    # Each bar's hash holds its number: the sum, modulo 2^64, is of the bars in their order.
    episodes = pd.DataFrame({"hash": hashes.groupby(keys, sort=False).sum(), "bars": hashes.groupby(keys).size()})
    repeated = episodes.reset_index().duplicated([*_EVALUATION, "hash", "bars"]).to_numpy()
    again = episodes.index[repeated]
    return series[~pd.MultiIndex.from_frame(series[[*_EVALUATION, "episode"]]).isin(again)] if len(again) else series


def times_of(series: pd.DataFrame) -> NDArray[np.uint64] | None:
    """Returns one sorted number for each (symbol, time) that a series has bars of; None where it has no times."""
    if series.empty or "timestamp" not in series or bar_times(series["timestamp"]) is None:
        return None
    symbols = series["symbol"] if "symbol" in series else pd.Series("", index=series.index)
    told = pd.DataFrame({"symbol": symbols.astype(str), "timestamp": series["timestamp"]})
    return np.unique(pd.util.hash_pandas_object(told, index=False).to_numpy())
