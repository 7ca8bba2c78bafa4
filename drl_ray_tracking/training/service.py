"""The port of training: whoever trains agents on split data sets does it behind `AgentTrainingService`.

The words here are shared by every service: RLlib's, one that wraps another with tracking, and a team's own that
knows nothing of Ray. Nothing here trains, and nothing imports Ray.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from drl_ray_tracking import names
from drl_ray_tracking.episodes import EpisodeRecord
from drl_ray_tracking.errors import ConfigurationError, DataError
from drl_ray_tracking.markets.datasets import SPLITS, SplitDataSet

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class TrainedAgent:
    """One agent after training, and how it did.

    Attributes:
        name: readable and its own among the outcome's: "ppo-EURUSD-f0-s1".
        algorithm: "PPO", "DQN"; whatever the service calls it.
        symbols: what it was trained on.
        seed: of its training.
        fold: of a walk-forward, None for a single split.
        params: hyperparameters that tell it from others.
        metrics: of its validation, under the names runs have: "eval/trading/sharpe".
        test_metrics: of its test window, "test/trading/sharpe"; empty unless the test was asked for.
        episodes: of its evaluations, by split ("validation", "test"); chronological.
        checkpoint: directory or URI it is saved in; None where the service does not save.
        policy: what acts, where the service keeps it in memory.
        run_id: its MLflow run; None where it is not tracked, or not delivered yet.
        error: why it failed; None for one that trained.
        tags: whatever else identifies it (parent checkpoint, window ids).
    """

    name: str
    algorithm: str
    symbols: tuple[str, ...]
    seed: int
    fold: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    test_metrics: Mapping[str, float] = field(default_factory=dict)
    episodes: Mapping[str, tuple[EpisodeRecord, ...]] = field(default_factory=dict)
    checkpoint: str | None = None
    policy: Any = None
    run_id: str | None = None
    error: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def symbol(self) -> str:
        """What it was trained on, as one text."""
        return "+".join(self.symbols)

    def returns(self, split: str = "validation") -> pd.Series[float]:
        """Returns the net return of every bar of a split's evaluation, indexed by the time the bar ended.

        A bar without a mark is part of the next one, and after a ruin nothing is earned.

        Raises:
            DataError: the service kept no marked-to-market episodes with timestamps of that split.
        """
        import numpy as np
        import pandas as pd

        from drl_ray_tracking.analysis.bars import bars_of

        parts = []
        for record in self.episodes.get(split, ()):
            if record.equity is None or record.timestamp is None:
                continue
            stamps = record.timestamp[1:]
            index = pd.to_datetime(stamps, unit="s") if stamps.dtype.kind in "fiu" else pd.to_datetime(stamps)
            bars = bars_of(np.asarray(record.equity, dtype=np.float64))
            parts.append(pd.Series(bars.returns, index=index[bars.ends - 1]))
        if not parts:
            raise DataError(
                f"{self.name} has no {split} episodes with equity and timestamps; it has {sorted(self.episodes)}"
            )
        return pd.concat(parts).rename(self.name)


@dataclass(frozen=True)
class TrainingOutcome:
    """What a training left behind.

    Attributes:
        agents: every agent that was to be trained, the failed ones too.
        run_ids: parent runs in MLflow, where there are any.
        experiment: the MLflow experiment's name; "" where nothing was tracked.
        tracking_uri: the store; "" where nothing was tracked.
        delivered: whether everything tracked is in the store by now.
        sweep_ids: of the sweeps, for `compare`.
        result_paths: where Tune keeps its own results.
        errors: of the whole, beside those of single agents.
        interrupted: whether it was ended before every agent was trained: its agents are not judged or compared.
    """

    agents: tuple[TrainedAgent, ...]
    run_ids: tuple[str, ...] = ()
    experiment: str = ""
    tracking_uri: str = ""
    delivered: bool = True
    sweep_ids: tuple[str, ...] = ()
    result_paths: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    interrupted: bool = False

    @property
    def trained(self) -> tuple[TrainedAgent, ...]:
        """The agents that trained to their end."""
        return tuple(agent for agent in self.agents if agent.error is None)

    def best(self, metric: str = names.DEFAULT_METRIC, mode: Literal["max", "min"] = "max") -> TrainedAgent:
        """Returns the agent with the best validation value; of equal ones the first.

        Raises:
            DataError: none has a value of the metric; says which there are.
        """
        sign = 1.0 if mode == "max" else -1.0
        having = [agent for agent in self.trained if metric in agent.metrics]
        if not having:
            known = sorted({key for agent in self.trained for key in agent.metrics})
            raise DataError(f"no trained agent has {metric!r}; they have {', '.join(known) or 'no metrics'}")
        return max(having, key=lambda agent: sign * agent.metrics[metric])

    def to_frame(self) -> pd.DataFrame:
        """Returns a row per agent: labels, then its metrics."""
        import pandas as pd

        rows = [
            {
                "name": agent.name,
                "algorithm": agent.algorithm,
                "symbol": agent.symbol,
                "fold": agent.fold,
                "seed": agent.seed,
                "error": agent.error,
                **agent.metrics,
                **agent.test_metrics,
            }
            for agent in self.agents
        ]
        return pd.DataFrame(rows)


@runtime_checkable
class AgentTrainingService(Protocol):
    """Trains agents on data sets. What it trains (algorithms, hyperparameters) is the service's own matter."""

    def create_env_and_train_agents(
        self,
        datasets: Sequence[SplitDataSet],
        *,
        seeds: Sequence[int] = (1,),
        start_from: str | None = None,
        test: bool = False,
    ) -> TrainingOutcome:
        """Makes the environments of each data set and trains the service's agents in them.

        Args:
            datasets: one for each symbol and fold; agents train on `training`, are judged on `validation`.
            seeds: every agent trains once for each of them.
            start_from: checkpoint or model whose weights training goes on from; None begins afresh.
            test: whether trained agents also run on `test`: a look that counts.

        Returns:
            One agent for each algorithm, data set and seed. A failed one carries its error; it ends no other.

        Raises:
            ConfigurationError, DataError: what was asked for cannot be; nothing has trained.
        """
        ...


def split_data_set(
    container: Any,
    *,
    symbol: str,
    timeframe: str,
    periods_per_year: float,
    feature_config_version: str = "0",
    feature_config_hash: str | None = None,
    data_digest: str | None = None,
    fold: int | None = None,
) -> SplitDataSet:
    """Makes a data set of a bare split container and says what such containers forget to carry.

    Args:
        container: has `training_data`, `validation_data` and `test_data` (or `training`, `validation`, `test`),
            frames indexed by time with a `close` column in any case.
        symbol, timeframe, periods_per_year: what was traded, how long a bar is, how many a year has.
        feature_config_version: version of the code that computed the features.
        feature_config_hash: of its settings; None hashes the columns' names.
        data_digest: of the whole series; None hashes the container's bars.
        fold: of a walk-forward.

    Raises:
        ConfigurationError: the container lacks a piece; says which names were looked for.
        DataError: a piece is empty, unordered or overlaps the next.
    """
    import hashlib

    import pandas as pd

    pieces: list[pd.DataFrame] = []
    for split, plain in zip(SPLITS, ("training", "validation", "test"), strict=True):
        found = getattr(container, f"{plain}_data", getattr(container, plain, None))
        if not isinstance(found, pd.DataFrame):
            raise ConfigurationError(
                f"{type(container).__name__} has no frame `{plain}_data` or `{plain}` for the {split} piece; "
                f"found {type(found).__name__}"
            )
        closes = [name for name in found.columns if str(name).lower() == "close"]
        pieces.append(found.rename(columns={closes[0]: "close"}) if len(closes) == 1 else found)
    if data_digest is None:
        hashed = (pd.util.hash_pandas_object(piece, index=True).to_numpy().tobytes() for piece in pieces)
        data_digest = hashlib.sha256(b"".join(hashed)).hexdigest()
    if feature_config_hash is None:
        columns = "|".join(map(str, pieces[0].columns))
        feature_config_hash = hashlib.sha256(columns.encode()).hexdigest()
    training, validation, test = pieces
    return SplitDataSet(
        training=training,
        validation=validation,
        test=test,
        symbol=symbol,
        timeframe=timeframe,
        feature_config_version=feature_config_version,
        feature_config_hash=feature_config_hash,
        periods_per_year=periods_per_year,
        data_digest=data_digest,
        fold=fold,
    )
