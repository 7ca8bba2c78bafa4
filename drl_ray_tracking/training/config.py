"""The sweep's configuration: one YAML file, validated whole, every problem said at once with its path."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.names import DEFAULT_METRIC, suggestion

_EXPONENT: Final = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")
Moment = datetime.datetime | datetime.date | str


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(_Part):
    """Where prices come from: `gym_anytrading:GOOGL`, `gym_anytrading:EURUSD`, or a CSV or Parquet file.

    A file needs `symbol`, `timeframe` and `periods_per_year`; its path is relative to the YAML file.
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


class AgentConfig(_Part):
    """One RLlib algorithm. `training` takes the keys of its `AlgorithmConfig`, `model` of its model config."""

    algorithm: str
    training: dict[str, Any] = Field(default_factory=dict)
    model: dict[str, Any] = Field(default_factory=dict)


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
    """What a trial may use; Tune runs as many at once as the cluster holds."""

    env_runners: int = Field(default=0, ge=0)
    envs_per_runner: int = Field(default=1, ge=1)
    max_concurrent: int | None = Field(default=None, ge=1)


class TrackingConfig(_Part):
    """Where runs go; without `uri`, `$MLFLOW_TRACKING_URI`, else `mlflow.db` in the working directory."""

    uri: str | None = None
    offline: bool = False
    names: Literal["vocabulary", "raw", "both"] = "vocabulary"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    tags: dict[str, str] = Field(default_factory=dict)
    drain_timeout_s: float = Field(default=60.0, ge=0)


class SweepConfig(_Part):
    """The whole file."""

    experiment: str = Field(min_length=1)
    data: DataConfig
    split: SplitConfig = SplitConfig()
    features: dict[str, Any] = Field(default_factory=dict)
    env: dict[str, Any] = Field(default_factory=dict)
    agents: list[AgentConfig] = Field(min_length=1)
    search: dict[str, SearchDimension] = Field(default_factory=dict)
    seeds: list[int] = Field(default=[1, 2, 3], min_length=1)
    samples: int = Field(default=1, ge=1)
    stop: dict[str, float] = Field(min_length=1)
    objective: ObjectiveConfig = ObjectiveConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    resources: ResourceConfig = ResourceConfig()
    tracking: TrackingConfig = TrackingConfig()
    storage: str | None = None


def load_config(path: str | Path) -> SweepConfig:
    """Reads and validates a YAML file.

    Raises:
        ConfigurationError: no such file, no YAML, or anything in it that is not allowed; all problems at
            once, each with its path into the file and, for a misspelt key, what was probably meant.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"the configuration {path} cannot be read: {error.strerror or error}") from error
    try:
        given = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"{path} holds {type(given).__name__}, a mapping of keys is expected")
    return parse_config(given, str(path))


def parse_config(given: Mapping[str, Any], where: str) -> SweepConfig:
    """Validates a configuration given as a mapping; `where` names it in the error (see `load_config`)."""
    try:
        return SweepConfig.model_validate(_numbers(given))
    except ValidationError as error:
        problems: dict[str, list[str]] = {}
        for item in error.errors():
            path, problem = _problem(item)
            problems.setdefault(path, []).append(problem)
        lines = "".join(f"\n  {path}: {' or '.join(dict.fromkeys(said))}" for path, said in problems.items())
        raise ConfigurationError(f"{where}: {len(problems)} problem(s){lines}") from error


def _numbers(value: Any) -> Any:
    """YAML 1.1 reads `1e-4` as text (it wants `1.0e-4`); everyone means the number."""
    if isinstance(value, Mapping):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)
    return value


def _problem(item: Any) -> tuple[str, str]:
    """Returns the path into the file and what is wrong there."""
    location = [part for part in item["loc"] if not (isinstance(part, str) and part.startswith(("tuple[", "float")))]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    if item["type"] == "extra_forbidden":
        allowed = _keys_at(location[:-1])
        hint = suggestion(str(location[-1]), allowed) or f"; allowed: {', '.join(allowed)}"
        return path, f"unknown key{hint}"
    if item["type"] == "missing":
        return path, "is needed and missing"
    given = item["input"]
    shown = "" if isinstance(given, Mapping) else f" (given {given!r})"
    return path or "the file", item["msg"].removeprefix("Value error, ") + shown


def _keys_at(location: list[Any]) -> list[str]:
    """Returns the keys allowed where an unknown one stood."""
    model: Any = SweepConfig
    known: Mapping[str, Any] = {
        "data": DataConfig,
        "split": SplitConfig,
        "agents": AgentConfig,
        "search": SearchDimension,
        "objective": ObjectiveConfig,
        "evaluation": EvaluationConfig,
        "resources": ResourceConfig,
        "tracking": TrackingConfig,
    }
    if location:
        model = known.get(str(location[0]), SweepConfig)
    return list(model.model_fields)
