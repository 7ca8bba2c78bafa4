"""Which hyperparameters matter: how much of the differences between configurations each of them explains.

Through Optuna's functional ANOVA over a forest (`pip install 'drl-ray-tracking[importance]'`), on one value a
configuration: the median over its seeds, so that a lucky seed is no effect.

Source: Hutter, Hoos, Leyton-Brown, "An Efficient Approach for Assessing Hyperparameter Importance", ICML 2014.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from drl_ray_tracking.analysis.comparison import SEED, Comparison
from drl_ray_tracking.analysis.extras import extra
from drl_ray_tracking.analysis.labels import PARAM, differing_parameters
from drl_ray_tracking.analysis.runset import RunSet
from drl_ray_tracking.errors import DataError

_LARGEST: Final = 1e38  # the forest computes in single precision
LEAST_CONFIGURATIONS: Final = 8  # a forest sees nothing in fewer
_DECADES: Final = 100.0  # a positive parameter that spans more than this is searched on a logarithmic scale


@dataclass(frozen=True)
class Importance:
    """Shares of the explained variance by parameter, the largest first; they sum to one."""

    shares: dict[str, float]
    configurations: int


def importance(comparison: Comparison, runs: RunSet) -> Importance:
    """Returns how important each parameter is that differs between the configurations compared.

    Args:
        comparison: of `runs`.
        runs: what was compared.

    Raises:
        DataError: too few configurations, or none of their parameters differs; says which.
        ConfigurationError: Optuna is not installed.
    """
    table = medians(comparison, runs)
    parameters = [str(column) for column in table if column != "value"]
    if len(table) < LEAST_CONFIGURATIONS:
        raise DataError(
            f"importance needs at least {LEAST_CONFIGURATIONS} configurations but there are {len(table)}: fewer tell "
            "nothing about what matters"
        )
    if len(parameters) < 2:
        raise DataError(f"importance compares parameters, but {len(parameters)} differs between the configurations")
    if table["value"].nunique() < 2:
        raise DataError("all configurations have the same median: nothing is to be explained")
    optuna = extra("optuna", "importance", "hyperparameter importance")
    extra("sklearn", "importance", "hyperparameter importance")
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it announces every study it makes
    try:
        study = optuna.create_study(direction="maximize")
        distributions = {name: _distribution(optuna, table[name]) for name in parameters}
        for row in table.to_dict("records"):
            params = {name: _typed(row[name], table[name]) for name in parameters}
            study.add_trial(
                optuna.trial.create_trial(params=params, distributions=distributions, value=float(row["value"]))
            )
        found = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=SEED)
        )
    finally:
        optuna.logging.set_verbosity(before)
    return Importance({name: float(share) for name, share in found.items()}, len(table))


def medians(comparison: Comparison, runs: RunSet) -> pd.DataFrame:
    """Returns one row a configuration hash: the parameters in which they differ, and `value`, the median over seeds."""
    values = comparison.values
    hashes = runs.runs.loc[values.index, "config_hash"].fillna("unknown").astype("str")
    seeds = values["seed"].astype("object").where(values["seed"].notna(), pd.Series(values.index, index=values.index))
    value = values["value"].groupby([hashes, seeds]).mean().groupby(level=0).median()
    differing = differing_parameters(runs.runs.loc[values.index], hashes)
    columns = {column.removeprefix(PARAM): pd.Series(by_hash) for column, by_hash in differing.items()}
    return pd.DataFrame(columns, index=value.index).assign(value=value)


def numbers_of(column: pd.Series[Any]) -> pd.Series[float] | None:
    """Returns a parameter as numbers; None where one is no number, or none a scale has room for (`grad_clip: inf`)."""
    numbers = pd.to_numeric(column, errors="coerce").astype("float64")
    return numbers if (numbers.abs() <= _LARGEST).all() else None


def _distribution(optuna: Any, column: pd.Series[Any]) -> Any:
    numbers = numbers_of(column)
    if numbers is None:
        return optuna.distributions.CategoricalDistribution(sorted(set(column.astype(str))))
    low, high = float(numbers.min()), float(numbers.max())
    return optuna.distributions.FloatDistribution(low, high, log=low > 0.0 and high / low >= _DECADES)


def _typed(value: Any, column: pd.Series[Any]) -> Any:
    return str(value) if numbers_of(column) is None else float(value)
