"""Promotion: the best trial's best checkpoint, backtested, judged by the gates, registered with where it comes from.

The alias `champion` moves only when every gate is passed; why it moved, or stayed, is written on the version.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from drl_ray_tracking import names
from drl_ray_tracking.analysis.budget import count_test_evaluation
from drl_ray_tracking.analysis.runs import load_runs, open_client
from drl_ray_tracking.analysis.store_errors import store_errors
from drl_ray_tracking.analysis.tries import tries_of
from drl_ray_tracking.errors import DataError
from drl_ray_tracking.models.backtest import Backtest
from drl_ray_tracking.models.loading import load_policy
from drl_ray_tracking.promotion.candidate import Candidate, best_candidate
from drl_ray_tracking.promotion.evidence import evidence_of
from drl_ray_tracking.promotion.gates import PromotionConfig, judge
from drl_ray_tracking.promotion.rebuild import market_of, trial_config
from drl_ray_tracking.tracking import events
from drl_ray_tracking.tracking.checkpoints import Checkpoints
from drl_ray_tracking.tracking.mlflow_sink import MlflowSink, bounded_requests
from drl_ray_tracking.tracking.trial_files import fetch_folder
from drl_ray_tracking.training.backtests import backtest_agent, raised_costs
from drl_ray_tracking.training.market import Market, test_window
from drl_ray_tracking.training.thresholds import Verdict

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

CHAMPION: Final = "champion"
_FIRST_VERSION: Final = "1.0.0"
_CARRIED: Final = (
    names.TAG_DATA_DIGEST,
    names.TAG_CONFIG_HASH,
    names.TAG_FEATURES,
    names.TAG_SWEEP_ID,
    names.TAG_CONTINUED_RUN,
    names.TAG_CONTINUED_STEP,
)


@dataclass(frozen=True)
class Promotion:
    """What became of a candidate.

    Attributes:
        model: the registered model's name.
        version: of the candidate in it.
        champion: whether every gate was passed, and the alias points at this version now.
        candidate: the checkpoint.
        kpis: of its backtest, as `Backtest.kpis`.
        verdicts: one a gate.
        text: all of it in words, as on the version.
    """

    model: str
    version: str
    champion: bool
    candidate: Candidate
    kpis: dict[str, float]
    verdicts: tuple[Verdict, ...]
    text: str


@dataclass(frozen=True)
class _Judged:
    """A candidate before it is registered."""

    run: Run
    candidate: Candidate
    done: Backtest
    verdicts: tuple[Verdict, ...]
    origin: str


def promote(
    tracking_uri: str | None,
    experiment: str,
    config: PromotionConfig,
    *,
    metric: str = names.DEFAULT_METRIC,
    mode: Literal["max", "min"] = "max",
    sweep_config: Path | None = None,
) -> Promotion:
    """Chooses the best checkpoint of an experiment, judges it, and registers it.

    Args:
        tracking_uri: the MLflow store; its registry takes the model.
        experiment: name or id.
        config: the model's name, the window, the gates.
        metric: what the best is chosen by.
        mode: whether more is better.
        sweep_config: the sweep's YAML, where its runs do not carry it.

    Raises:
        ConfigurationError: the store cannot be reached, or what is needed was not recorded.
        DataError: no checkpoint was evaluated or is left, or the data have changed since.
    """
    runs = load_runs(tracking_uri, experiment, metrics=[metric])
    uri = runs.tracking_uri
    client = open_client(uri)
    with store_errors(uri):
        experiment_id = str(client.get_run(str(runs.runs.index[0])).info.experiment_id)
        candidate = best_candidate(client, experiment_id, runs, metric, mode)
        run = client.get_run(candidate.run_id)
        trial = trial_config(client, run, sweep_config)
    market = market_of(trial, run)
    looks = _count_look(client, experiment_id, market, run) if config.window == "test" else None
    policy = load_policy(candidate.uri, tracking_uri=uri)
    plain, costs = backtest_agent(policy, trial, market, config.window), raised_costs(trial, config.cost_factor)
    stressed = backtest_agent(policy, trial, market, config.window, costs).kpis if costs else None
    tries = tries_of(runs, metric, run.data.tags.get(names.TAG_WINDOW_ID, ""), candidate.run_id)
    verdicts = judge(config.gates, evidence_of(plain.kpis, stressed, tries, looks=looks))
    with store_errors(uri):
        uploaded = replace(candidate, uploaded_id=_upload(uri, experiment_id, run, candidate))
        origin = (
            f"Run {run.info.run_name} ({run.info.run_id}), env step {candidate.step}: the best {metric} "
            f"({candidate.value:.4g}) of {len(runs)} trials. Backtested on the {config.window} window."
        )
        if looks is not None:
            origin += f" This was look {looks} at it: each one makes it less of a test."
        if names.TAG_CONTINUED_FROM in run.data.tags:
            origin += f" Its training went on from {run.data.tags[names.TAG_CONTINUED_FROM]}."
        return _register(client, uri, config, _Judged(run, uploaded, plain, verdicts, origin))


def _count_look(client: MlflowClient, experiment_id: str, market: Market, run: Run) -> int:
    window, bars = test_window(market.dataset)
    what = f"promotion of run {run.info.run_id}"
    return count_test_evaluation(client, experiment_id, window, what=what, time_ms=int(time.time() * 1000), bars=bars)


def _upload(uri: str, experiment_id: str, run: Run, candidate: Candidate) -> str:
    """Returns the id of the candidate's loadable model, uploaded now unless the sweep has done it."""
    if candidate.uploaded_id is not None:
        return candidate.uploaded_id
    saved = events.Saved(name=str(run.info.run_name), uri=candidate.uri, step=candidate.step, iteration=0)
    with bounded_requests():
        store = Checkpoints(
            MlflowSink(uri).models, lambda source, scratch: fetch_folder(names.CHECKPOINT_FOLDER, source, scratch)
        )
        model_id = store.upload(experiment_id, str(run.info.run_id), saved, keep=None)
    if model_id is None:
        raise DataError(f"the checkpoint {candidate.uri} is gone: it cannot be registered")
    return model_id


def _register(client: MlflowClient, uri: str, config: PromotionConfig, judged: _Judged) -> Promotion:
    run, candidate, verdicts = judged.run, judged.candidate, judged.verdicts
    passed = all(verdict.passed for verdict in verdicts)
    champion = _prepare(client, config.model)
    text = _text(judged, champion)
    tags: dict[str, str] = {key: run.data.tags[key] for key in _CARRIED if key in run.data.tags}
    if names.TAG_CONTINUED_FROM in run.data.tags:
        tags[names.TAG_MODEL_PARENT] = run.data.tags[names.TAG_CONTINUED_FROM]
    tags |= {
        names.TAG_RUN: str(run.info.run_id),
        names.TAG_CHECKPOINT_STEP: str(candidate.step),
        names.TAG_WINDOW_ID: run.data.tags.get(names.TAG_WINDOW_ID, ""),
        names.TAG_MODEL_VERSION: config.semantic_version or _next_version(client, config.model),
        names.TAG_MODEL_BEFORE: champion or "",
        names.TAG_PROMOTION: CHAMPION if passed else "refused",
        **{f"{names.TAG_GATE}.{one.gate}": f"{'passed' if one.passed else 'failed'}: {one.said}" for one in verdicts},
    }
    model = client.get_logged_model(str(candidate.uploaded_id))
    # A server asks for the model's id; a registry that is a database would look for it in MLflow's global store.
    origin: dict[str, Any] = (
        {"model_id": model.model_id} if uri.startswith("http") else {"run_id": str(run.info.run_id)}
    )
    made = client.create_model_version(config.model, model.artifact_location, tags=tags, description=text, **origin)
    version = str(made.version)
    if passed:
        client.set_registered_model_alias(config.model, CHAMPION, version)
    return Promotion(config.model, version, passed, candidate, dict(judged.done.kpis), verdicts, text)


def _prepare(client: MlflowClient, model: str) -> str | None:
    """Makes the registered model where there is none; returns the version that is champion now."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    aliases = client.get_registered_model(model).aliases
    return str(aliases[CHAMPION]) if CHAMPION in aliases else None


def _next_version(client: MlflowClient, model: str) -> str:
    """Returns the highest semantic version of a registered model with its minor number raised."""
    found = []
    for version in client.search_model_versions(f"name = '{model}'"):
        given = version.tags.get(names.TAG_MODEL_VERSION, "")
        if re.fullmatch(r"\d+\.\d+\.\d+", given):
            found.append(tuple(int(part) for part in given.split(".")))
    if not found:
        return _FIRST_VERSION
    major, minor, _ = max(found)
    return f"{major}.{minor + 1}.0"


def _text(judged: _Judged, champion: str | None) -> str:
    failed = [verdict for verdict in judged.verdicts if not verdict.passed]
    before = f"version {champion}" if champion else "none"
    outcome = (
        f"Champion now; before it: {before}."
        if not failed
        else f"Not champion: {len(failed)} of {len(judged.verdicts)} gates failed. The champion stays: {before}."
    )
    lines = [f"- {one.gate}: {'passed' if one.passed else 'FAILED'}, {one.said}" for one in judged.verdicts]
    return "\n".join([outcome, judged.origin, *lines])
