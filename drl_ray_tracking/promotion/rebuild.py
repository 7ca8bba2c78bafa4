"""From a trial's run back to the configuration that made it: its sweep's YAML, narrowed to this one trial."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from drl_ray_tracking import names
from drl_ray_tracking.errors import ConfigurationError, DataError
from drl_ray_tracking.training.algorithms import ENV_PREFIX, MODEL_PREFIX
from drl_ray_tracking.training.config import (
    AgentConfig,
    DataConfig,
    SearchDimension,
    SweepConfig,
    dump_config,
    parse_config,
)
from drl_ray_tracking.training.market import Market, load_folds, load_market
from drl_ray_tracking.training.yaml_file import read_mapping

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient


def read_text(client: MlflowClient, run_id: str, file: str) -> str | None:
    """Returns a run's text artifact; None where it has none of that name."""
    if file not in {str(item.path) for item in client.list_artifacts(run_id)}:
        return None
    with tempfile.TemporaryDirectory(prefix="drl-run-") as scratch:
        return Path(client.download_artifacts(run_id, file, scratch)).read_text(encoding="utf-8")


def trial_config(client: MlflowClient, run: Run, given: Path | None = None) -> SweepConfig:
    """Returns the configuration that trains exactly this trial: its searched values, its seed.

    Args:
        client: of the store.
        run: the trial's.
        given: the sweep's YAML, for a sweep that kept none.

    Raises:
        ConfigurationError: what is needed was not recorded; says what.
    """
    sweep = _given(given) if given is not None else _recorded(client, run)
    text = read_text(client, run.info.run_id, names.CONFIG_ARTIFACT)
    if text is None:
        raise ConfigurationError(
            f"run {run.info.run_id} has no artifact {names.CONFIG_ARTIFACT}: its searched values are not known"
        )
    return narrowed(sweep, json.loads(text), run.data.tags)


def _given(file: Path) -> SweepConfig:
    """Returns a sweep's YAML file; its relative paths lie beside it, wherever this is run."""
    text = dump_config(parse_config(read_mapping(file), str(file), recorded=True), file.resolve().parent)
    return parse_config(yaml.safe_load(text), str(file), recorded=True)


def _recorded(client: MlflowClient, run: Run) -> SweepConfig:
    parent = names.sweep_run(run.data.tags)
    text = read_text(client, parent, names.SWEEP_ARTIFACT) if parent else None
    if text is None:
        raise ConfigurationError(
            f"the sweep of run {run.info.run_id} kept no {names.SWEEP_ARTIFACT}: it was not started by `drl-track "
            "train`, or by an older one. Give its YAML file with --sweep-config"
        )
    return parse_config(yaml.safe_load(text), f"{names.SWEEP_ARTIFACT} of run {parent}", recorded=True)


def narrowed(sweep: SweepConfig, trial: Mapping[str, Any], tags: Mapping[str, str]) -> SweepConfig:
    """Returns a sweep of one trial.

    Args:
        sweep: the whole one.
        trial: the trial's full configuration, as its run keeps it.
        tags: of its run, which say whose agent it is and on which symbol; in a walk-forward all folds stay.

    Raises:
        ConfigurationError: nothing says which of several agents or symbols the trial's are, or a searched value is
            not in its configuration.
    """
    agent, data = _of_trial(sweep, tags)
    env, search, missing = dict(sweep.env), {}, []
    for key in {**sweep.search, **agent.search}:
        try:
            value = _value_of(key, trial)
        except KeyError:
            missing.append(key)
            continue
        if key.startswith(ENV_PREFIX):
            env[key.removeprefix(ENV_PREFIX)] = value
        else:
            search[key] = SearchDimension(grid=[value])
    if missing or not isinstance(trial.get("seed"), int):
        raise ConfigurationError(
            f"the trial's configuration lacks {', '.join(missing) or 'a seed'}: this YAML is not that of its sweep"
        )
    own = {"agents": [agent.model_copy(update={"search": {}})], "data": data, "more_data": [], "scheduler": None}
    one = {"env": env, "search": search, "seeds": [trial["seed"]], "samples": 1}
    return sweep.model_copy(update={**own, **one, **_runners(sweep, trial)})


def _runners(sweep: SweepConfig, trial: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the resources a trial really had: `auto`, and what a small machine cut, decide what is sampled."""
    resources = {
        "env_runners": trial.get("num_env_runners"),
        "envs_per_runner": trial.get("num_envs_per_env_runner"),
    }
    evaluators = trial.get("evaluation_num_env_runners")
    evaluation = {"runners": evaluators} if isinstance(evaluators, int) else {}
    known = {key: value for key, value in resources.items() if isinstance(value, int)}
    return {
        "resources": sweep.resources.model_copy(update=known),
        "evaluation": sweep.evaluation.model_copy(update=evaluation),
    }


def _of_trial(sweep: SweepConfig, tags: Mapping[str, str]) -> tuple[AgentConfig, DataConfig]:
    """Returns the agent and the data a trial is one of."""
    agents = [one for one in sweep.agents if len(sweep.agents) == 1 or one.label == tags.get(names.TAG_AGENT)]
    symbol = tags.get(names.TAG_SYMBOLS)
    markets = [one for one in sweep.markets if len(sweep.markets) == 1 or _symbol(one) == symbol]
    if len(agents) != 1 or len(markets) != 1:
        raise ConfigurationError(
            f"the sweep has {len(sweep.agents)} agents on {len(sweep.markets)} symbols, and the trial's tags do not "
            "say which are its own: give the YAML file with the others left out"
        )
    return agents[0], markets[0]


def _symbol(data: DataConfig) -> str:
    return data.symbol or data.source.rpartition(":")[2].rpartition("/")[2].partition(".")[0]


def _value_of(key: str, trial: Mapping[str, Any]) -> Any:
    if key.startswith(ENV_PREFIX):
        return trial["env_config"][key.removeprefix(ENV_PREFIX)]
    if key.startswith(MODEL_PREFIX):
        model = trial.get("_model_config") or trial["model_config"]
        return model[key.removeprefix(MODEL_PREFIX)]
    return trial[key]


def market_of(config: SweepConfig, run: Run) -> Market:
    """Loads the data a trial was trained on, and refuses any other.

    Raises:
        DataError: the data are not those of the run any more.
    """
    if config.walk_forward is None:
        market = load_market(config.data, config.split, config.features, Path.cwd())
    else:
        folds = load_folds(config.data, config.walk_forward, config.features, Path.cwd())
        market = Market.of(folds[int(run.data.tags.get(names.TAG_FOLD, 0))])
    recorded, now = run.data.tags.get(names.TAG_DATA_DIGEST, ""), market.dataset.data_digest
    if recorded != now:
        raise DataError(
            f"{config.data.source} is not the data of run {run.info.run_id} any more: their digest was "
            f"{recorded or 'not recorded'}, it is {now}"
        )
    return market
