"""The sweep's configuration: one YAML file, validated whole, every problem said at once with its path."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.names import DEFAULT_METRIC
from drl_ray_tracking.training.config_checks import problems_of
from drl_ray_tracking.training.config_reading import numbers, problem_at, several_markets
from drl_ray_tracking.training.rules import Rules
from drl_ray_tracking.training.yaml_file import read_mapping

Moment = datetime.datetime | datetime.date | str | int  # a year, as YAML reads it


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(_Part):
    """Where prices come from: `gym_anytrading:GOOGL`, `gym_anytrading:EURUSD`, a CSV or Parquet file, code of yours.

    A file needs `symbol`, `timeframe` and `periods_per_year`; its path is relative to the YAML file. So does
    `module:function`, which returns a frame of bars when called without arguments.
    """

    source: str
    symbol: str | None = None
    timeframe: str | None = None
    periods_per_year: float | None = Field(default=None, gt=0)
    timestamp_column: str | None = None
    timestamp_format: str | None = None


class SplitConfig(_Part):
    """How history is cut: by fractions in time order, or by date ranges; `embargo` is in bars."""

    train: float | tuple[Moment, Moment] = 0.6
    validation: float | tuple[Moment, Moment] = 0.2
    test: float | tuple[Moment, Moment] = 0.2
    embargo: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _one_kind(self) -> SplitConfig:
        kinds = {isinstance(part, tuple) for part in (self.train, self.validation, self.test)}
        if len(kinds) > 1:
            raise ValueError("train, validation and test must all be fractions or all be [start, end] date ranges")
        return self

    @property
    def by_date(self) -> bool:
        """Whether the pieces are date ranges."""
        return isinstance(self.train, tuple)


class WalkForwardConfig(_Part):
    """Folds instead of one split: train | embargo | validation | embargo | test, each `test_bars` after the last.

    `rolling` keeps the length that is trained on, `anchored` always trains from the first bar. With `test`, the
    checkpoint that was best on each fold's validation bars runs once over its test bars, and this look is counted.
    """

    folds: int = Field(ge=1)
    train_bars: int = Field(ge=2)
    validation_bars: int = Field(ge=2)
    test_bars: int = Field(ge=2)
    mode: Literal["rolling", "anchored"] = "rolling"
    embargo: int = Field(default=0, ge=0)
    test: bool = True


class SearchDimension(_Part):
    """How one hyperparameter is drawn: exactly one of these."""

    grid: list[Any] | None = None
    choice: list[Any] | None = None
    uniform: tuple[float, float] | None = None
    loguniform: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> SearchDimension:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of grid, choice, uniform, loguniform (given: {given or 'none'})")
        return self


class AgentConfig(_Part):
    """One RLlib algorithm. `training` takes the keys of its `AlgorithmConfig`, `model` of its model config.

    `name` tells it from others; default its algorithm, small. `search` is its own, beside that of all agents.
    """

    algorithm: str
    name: str | None = Field(default=None, min_length=1)
    training: dict[str, Any] = Field(default_factory=dict)
    model: dict[str, Any] = Field(default_factory=dict)
    search: dict[str, SearchDimension] = Field(default_factory=dict)

    @property
    def label(self) -> str:
        """What it is called."""
        return self.name or self.algorithm.lower()


class EnsembleConfig(_Part):
    """Agents that decide together, see `training.ensemble`: on every market and fold, the best of each seed.

    `agents` are their names, None is all. With `weighted` and `mean` each weighs what it was worth on the validation
    bars by the objective, where that is positive; where none was, all weigh the same.
    """

    vote: Literal["majority", "weighted", "mean"]
    agents: list[str] | None = Field(default=None, min_length=1)

    @property
    def label(self) -> str:
        """What it is called."""
        return "-".join(["ensemble", self.vote, *(self.agents or ())])


class SchedulerConfig(_Part):
    """Who decides which trials go on: `asha` stops the worse ones early, `pbt` lets them go on from better ones.

    Intervals and periods are iterations. `mutate` is for PBT: the keys it changes, and how they are drawn.
    """

    kind: Literal["asha", "pbt"]
    grace_period: int = Field(default=1, ge=1)
    reduction_factor: int = Field(default=3, ge=2)
    interval: int = Field(default=4, ge=1)
    mutate: dict[str, SearchDimension] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _mutations(self) -> SchedulerConfig:
        if self.kind == "pbt" and not self.mutate:
            raise ValueError("pbt needs `mutate`: the keys it may change, such as lr: {loguniform: [1.0e-5, 1.0e-3]}")
        if self.kind != "pbt" and self.mutate:
            raise ValueError(f"`mutate` is pbt's; {self.kind} changes nothing")
        return self


class ObjectiveConfig(_Part):
    """What the sweep is about: a metric by its MLflow name or its Tune path."""

    metric: str = DEFAULT_METRIC
    mode: Literal["max", "min"] = "max"


class EvaluationConfig(_Part):
    """How often every validation window is run; `runners` 0 evaluates in the trial's own process."""

    interval: int = Field(default=1, ge=1)
    window: int | None = Field(default=None, ge=2)
    runners: int = Field(default=0, ge=0)


class ResourceConfig(_Part):
    """What a trial may use; Tune runs as many at once as the cluster holds.

    A trial whose node or process dies starts again from its last checkpoint, into the same run, `max_failures` times.

    `env_runners: auto` gives every trial that can run at once its share of the cores. More than the machine has is
    cut to what it has, and said: such a trial would wait for ever.
    """

    env_runners: Annotated[int, Field(ge=0)] | Literal["auto"] = 0
    envs_per_runner: int = Field(default=1, ge=1)
    max_concurrent: int | None = Field(default=None, ge=1)
    max_failures: int = Field(default=2, ge=0)


class TrackingConfig(_Part):
    """Where runs go; without `uri`, `$MLFLOW_TRACKING_URI`, else `mlflow.db` in the working directory."""

    uri: str | None = None
    offline: bool = False
    names: Literal["vocabulary", "raw", "both"] = "vocabulary"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    tags: dict[str, str] = Field(default_factory=dict)
    system_metrics: bool | float = True  # or the seconds between samples
    drain_timeout_s: float = Field(default=60.0, ge=0)


class CheckpointsConfig(_Part):
    """What Tune saves of every trial, and what of it is uploaded; every checkpoint has a pointer in the store."""

    every: int | None = Field(default=None, ge=1)  # iterations; None: whenever the agent is evaluated
    # The best so many by the objective, and the newest; None: all. Tune writes its whole state down whenever a trial
    # has saved this often: few are dear in a large sweep.
    keep: int | None = Field(default=5, ge=1)
    upload: Literal["none", "last", "best", "all"] = "none"


class SweepConfig(_Part):
    """The whole file.

    `data` is one market, or a list of them (`more_data` are those after the first). `env_class` and `callbacks` name
    code of the user's as `module:Name`, `trading` the info keys of that environment, see `instrument`. `start_from`
    names a model whose weights every trial begins with: a checkpoint's path or address, `models:/NAME@champion`;
    loading it executes its pickles. `search_seed` decides what is drawn of `search`: every seed, symbol and fold gets
    the same values, and the same file the same search. `rules` are judged on what each agent did on its validation
    bars.
    """

    experiment: str = Field(min_length=1)
    data: DataConfig
    more_data: list[DataConfig] = Field(default_factory=list)
    split: SplitConfig = SplitConfig()
    walk_forward: WalkForwardConfig | None = None
    test: bool = False
    leakage: Literal["refuse", "warn", "off"] = "refuse"
    features: dict[str, Any] = Field(default_factory=dict)
    env_class: str | None = None
    env: dict[str, Any] = Field(default_factory=dict)
    trading: dict[str, str] | None = None
    callbacks: list[str] = Field(default_factory=list)
    agents: list[AgentConfig] = Field(min_length=1)
    ensembles: list[EnsembleConfig] = Field(default_factory=list)
    search: dict[str, SearchDimension] = Field(default_factory=dict)
    seeds: list[int] = Field(default=[1, 2, 3], min_length=1)
    samples: int = Field(default=1, ge=1)
    search_seed: int = Field(default=0, ge=0)
    stop: dict[str, float] = Field(min_length=1)
    rules: Rules | None = None
    scheduler: SchedulerConfig | None = None
    objective: ObjectiveConfig = ObjectiveConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    resources: ResourceConfig = ResourceConfig()
    checkpoints: CheckpointsConfig = CheckpointsConfig()
    tracking: TrackingConfig = TrackingConfig()
    storage: str | None = None
    start_from: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _fits_together(self, info: ValidationInfo) -> SweepConfig:
        recorded = bool((info.context or {}).get("recorded"))
        problems = [] if recorded else problems_of(self)
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def markets(self) -> list[DataConfig]:
        """All of the data, a symbol each."""
        return [self.data, *self.more_data]

    @property
    def wants_test(self) -> bool:
        """Whether trained agents also run over their test bars."""
        return self.test or (self.walk_forward is not None and self.walk_forward.test)


def load_config(path: str | Path) -> SweepConfig:
    """Reads and validates a YAML file.

    Raises:
        ConfigurationError: no such file, no YAML, or anything in it that is not allowed; all problems at
            once, each with its path into the file and, for a misspelt key, what was probably meant.
    """
    return parse_config(read_mapping(Path(path)), str(path))


def parse_config(given: Mapping[str, Any], where: str, *, recorded: bool = False) -> SweepConfig:
    """Validates a configuration given as a mapping; `where` names it in the error (see `load_config`).

    One that is `recorded` has trained: what an earlier version has allowed is not refused now.
    """
    try:
        return SweepConfig.model_validate(several_markets(numbers(given)), context={"recorded": recorded})
    except ValidationError as error:
        problems: dict[str, list[str]] = {}
        for item in error.errors():
            path, problem = problem_at(item, _keys_at)
            problems.setdefault(path, []).append(problem)
        lines = "".join(f"\n  {path}: {' or '.join(dict.fromkeys(said))}" for path, said in problems.items())
        raise ConfigurationError(f"{where}: {len(problems)} problem(s){lines}") from error


def dump_config(config: SweepConfig, base_dir: Path) -> str:
    """Returns a configuration as YAML that means the same in any directory, without where its runs go.

    Args:
        config: the configuration.
        base_dir: what relative data paths are relative to.
    """
    plain = config.model_dump(mode="json", exclude_none=True)
    if config.walk_forward is not None:
        plain.pop("split")
    plain["tracking"].pop("uri", None)
    if config.start_from is not None and ":" not in config.start_from:
        plain["start_from"] = str((base_dir / Path(config.start_from).expanduser()).resolve())
    for market in (plain["data"], *plain.get("more_data", [])):
        if (base_dir / market["source"]).is_file():
            market["source"] = str((base_dir / market["source"]).resolve())
    return yaml.safe_dump(plain, sort_keys=False)


def _keys_at(location: list[Any]) -> list[str]:
    """Returns the keys allowed where an unknown one stood."""
    model: Any = SweepConfig
    known: Mapping[str, Any] = {
        "data": DataConfig,
        "more_data": DataConfig,
        "walk_forward": WalkForwardConfig,
        "scheduler": SchedulerConfig,
        "ensembles": EnsembleConfig,
        "split": SplitConfig,
        "agents": AgentConfig,
        "search": SearchDimension,
        "objective": ObjectiveConfig,
        "rules": Rules,
        "evaluation": EvaluationConfig,
        "resources": ResourceConfig,
        "checkpoints": CheckpointsConfig,
        "tracking": TrackingConfig,
    }
    if location:
        model = known.get(str(location[0]), SweepConfig)
    return list(model.model_fields)
