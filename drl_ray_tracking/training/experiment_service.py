"""Any training service, tracked: the same experiment, names, tags, parameters, KPIs, verdicts and comparison for all.

What the service tracks itself (RLlib's does) keeps its runs and is only judged; what it does not becomes runs of the
same shape, so that all of them stand in one table.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

from drl_ray_tracking import names
from drl_ray_tracking.analysis.comparison import Comparison
from drl_ray_tracking.errors import TrackingError
from drl_ray_tracking.markets.datasets import SplitDataSet
from drl_ray_tracking.tracking.checkpoint_policy import Upload
from drl_ray_tracking.tracking.episode_pools import kpis_of
from drl_ray_tracking.tracking.experiment import ExperimentService
from drl_ray_tracking.tracking.tracked_run import TrackedRun, ending
from drl_ray_tracking.training.evaluation_series import log_series
from drl_ray_tracking.training.live_runs import LiveRun, LiveRuns
from drl_ray_tracking.training.market import Market
from drl_ray_tracking.training.rules import Rules, judge_episodes, load_rules, parse_rules
from drl_ray_tracking.training.rules_on_runs import judge_agents
from drl_ray_tracking.training.service import AgentTrainingService, TrainedAgent, TrainingOutcome

_log = logging.getLogger(__name__)
_STEPS: Final = ("total_timesteps", "timesteps", "env_steps")  # a parameter that says how long an agent trained


class ExperimentTrainingService:
    """Wraps a training service with tracking.

    Each agent is a run, named as the outcome names it, below a session of its own. It has the service's parameters
    (with `algorithm` and `seed`), the tags of its data set, the exact KPIs of its validation episodes, its checkpoint,
    and the verdict of the rules. In the end the experiment's runs are compared, and the comparison stands on the
    parent run.

    Args:
        service: what trains.
        experiment: MLflow experiment.
        tracking_uri: as for `ExperimentService`.
        session: the parent run's name; None makes one of the experiment's name and the time.
        tags: on every run.
        rules: what agents must keep: `Rules`, a mapping of them, or a YAML file; None for none.
        metric, mode: what runs are compared on; metric None compares nothing.
        live: what the service was given to track its agents while they train; see `LiveRuns`.
        checkpoints: which are uploaded, see `MLflowTrackingCallback`.

    Attributes:
        comparison: of the experiment's runs after the last training; None where nothing could be compared.

    Raises:
        ConfigurationError: the rules or the URI are wrong.
    """

    def __init__(
        self,
        service: AgentTrainingService,
        *,
        experiment: str,
        tracking_uri: str | None = None,
        session: str | None = None,
        tags: Mapping[str, Any] | None = None,
        rules: Rules | Mapping[str, Any] | str | Path | None = None,
        metric: str | None = names.DEFAULT_METRIC,
        mode: Literal["max", "min"] = "max",
        live: LiveRuns | None = None,
        checkpoints: Upload = "none",
    ) -> None:
        self._service = service
        self._experiment = experiment
        self._tracking_uri = tracking_uri
        self._session = session
        self._tags = {str(key): str(value) for key, value in (tags or {}).items()}
        self._rules = _rules(rules)
        self._metric = metric
        self._mode = mode
        self._live = live or LiveRuns()
        self._checkpoints: Upload = checkpoints
        self.comparison: Comparison | None = None

    def create_env_and_train_agents(
        self,
        datasets: Sequence[SplitDataSet],
        *,
        seeds: Sequence[int] = (1,),
        start_from: str | None = None,
        test: bool = False,
    ) -> TrainingOutcome:
        """Trains as the wrapped service does, tracked; see `AgentTrainingService`."""
        self.comparison = None
        tracked = ExperimentService(
            self._tracking_uri,
            experiment_name=self._experiment,
            session=self._session or f"{self._experiment}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}",
            tags=self._tags,
            checkpoints=self._checkpoints,
        )
        with tracked:
            self._live.attach(tracked.start_run)
            try:
                outcome = self._service.create_env_and_train_agents(
                    datasets, seeds=seeds, start_from=start_from, test=test
                )
            except BaseException as error:
                for live in self._live.detach():
                    status = ending(type(error))
                    live.run.end(status, error if status == "FAILED" else None)
                raise
            lives = self._live.detach()
            if outcome.tracking_uri and outcome.interrupted:
                _log.warning("the training was interrupted: nothing of it is judged or compared")
            elif outcome.tracking_uri:
                judge_agents(outcome.agents, self._rules, outcome.tracking_uri, tags=self._tags)
            else:
                outcome = self._track(outcome, lives, datasets, tracked)
            outcome = replace(outcome, delivered=tracked.close() and outcome.delivered)
        if not outcome.sweep_ids:
            self._count_looks(outcome, datasets, tracked.tracking_uri)
        if self._metric is not None and not outcome.interrupted:
            self._compare(outcome, self._metric)
        return outcome

    def _track(
        self,
        outcome: TrainingOutcome,
        lives: list[LiveRun],
        datasets: Sequence[SplitDataSet],
        tracked: ExperimentService,
    ) -> TrainingOutcome:
        """Makes a run of every agent, or goes on with the one it had while it trained."""
        if lives and len(lives) != len(outcome.agents):
            _log.warning(
                "%d agents were seen while they trained and %d are in the outcome: which is which cannot be told, so "
                "those seen keep runs of their own",
                len(lives),
                len(outcome.agents),
            )
            for live in lives:
                live.run.end()
            lives = []
        agents = []
        parents: dict[str, None] = {}
        for number, agent in enumerate(outcome.agents):
            seen = lives[number] if lives else None
            run = seen.run if seen is not None else tracked.start_run(agent.name)
            self._finish(agent, run, seen, _tags_of(agent, datasets))
            measured = {key: value for key, value in _validated(agent, 0).items() if key.startswith("eval/")}
            agents.append(replace(agent, run_id=run.run_id, metrics={**measured, **agent.metrics}))
            parents.update(dict.fromkeys([run.parent_run_id] if run.parent_run_id else []))
        return replace(
            outcome,
            agents=tuple(agents),
            run_ids=tuple(parents),
            experiment=self._experiment,
            tracking_uri=tracked.tracking_uri,
        )

    def _finish(self, agent: TrainedAgent, run: TrackedRun, live: LiveRun | None, tags: Mapping[str, str]) -> None:
        """Writes what is known of an agent on its run and ends it."""
        run.set_tags({**tags, **agent.tags, names.TAG_ALGORITHM: agent.algorithm, "mlflow.runName": agent.name})
        run.log_params({"algorithm": agent.algorithm, **agent.params, "seed": agent.seed})
        trained = next((int(agent.params[key]) for key in _STEPS if str(agent.params.get(key, "")).isdecimal()), 0)
        step = max(run.last_step, trained)
        validated = agent.episodes.get("validation", ())
        known: Mapping[str, float] = {}
        if live is None or not live.evaluated:
            for record in validated:
                run.log_episode(record, step=step, split="eval")
            known = _validated(agent, step)
        log_series(run, validated, step=step)
        measured = {key: value for key, value in {**agent.metrics, **agent.test_metrics}.items() if key not in known}
        if measured:
            run.log_metrics(measured, step=step)
        if self._rules is not None:
            ruling = judge_episodes(self._rules, validated)
            run.set_tags(ruling.tags())
            run.log_metrics(ruling.metrics(), step=step)
        self._keep_checkpoint(agent, run, step)
        if agent.error is None:
            run.end()
        else:
            run.log_text(agent.error, names.ERROR_ARTIFACT)
            run.set_tags({names.TAG_ERROR: (agent.error.strip().splitlines() or ["unknown"])[-1][:500]})
            run.end("FAILED")

    def _keep_checkpoint(self, agent: TrainedAgent, run: TrackedRun, step: int) -> None:
        if agent.checkpoint is None:
            return
        place = Path(agent.checkpoint)
        if place.is_dir():
            score = agent.metrics.get(self._metric or "")
            sign = 1.0 if self._mode == "max" else -1.0
            run.log_checkpoint(place, step, score=None if score is None else sign * score)
        elif place.is_file():  # as SB3 saves: one archive
            run.log_artifact(place, names.CHECKPOINT_FOLDER)
        else:
            run.set_tags({names.TAG_CHECKPOINT_URI: agent.checkpoint})

    def _count_looks(self, outcome: TrainingOutcome, datasets: Sequence[SplitDataSet], uri: str) -> None:
        """Counts the looks at test windows that a service without tracking took."""
        from drl_ray_tracking.analysis.budget import count_test_evaluation
        from drl_ray_tracking.analysis.runs import open_client
        from drl_ray_tracking.training.market import test_window

        try:
            client = open_client(uri)
            experiment = client.get_experiment_by_name(self._experiment)
            for agent in outcome.agents:
                looked = agent.test_metrics or agent.episodes.get("test")
                if experiment is None or not (looked or any(key.startswith("test/") for key in agent.metrics)):
                    continue
                for dataset in _datasets_of(agent, datasets):
                    window, bars = test_window(dataset)
                    now, where = int(time.time() * 1000), str(experiment.experiment_id)
                    count_test_evaluation(client, where, window, what=agent.name, time_ms=now, bars=bars)
        except Exception as error:  # noqa: BLE001 - whatever the store raises; the training is done
            _log.warning("looks at test windows are not counted: %s", error)

    def _compare(self, outcome: TrainingOutcome, metric: str) -> None:
        from drl_ray_tracking.analysis.compare import compare
        from drl_ray_tracking.analysis.publish import publish
        from drl_ray_tracking.analysis.runs import load_runs

        if not outcome.delivered:
            _log.warning("not everything is delivered yet: `drl-track sync`, then `drl-track compare` compares it")
            return
        experiments = list(dict.fromkeys([self._experiment, outcome.experiment]))
        try:
            runs = load_runs(outcome.tracking_uri, experiments if len(experiments) > 1 else outcome.experiment)
            self.comparison = compare(runs, metric=metric, mode=self._mode)
            publish(self.comparison, runs, tracking_uri=outcome.tracking_uri, title=self._experiment, page=False)
        except TrackingError as error:
            _log.warning("nothing is compared: %s", error)


def _validated(agent: TrainedAgent, step: int) -> dict[str, float]:
    return kpis_of(agent.episodes.get("validation", ()), split="eval", step=step)


def _rules(given: Rules | Mapping[str, Any] | str | Path | None) -> Rules | None:
    if given is None or isinstance(given, Rules):
        return given
    return parse_rules(given, "rules") if isinstance(given, Mapping) else load_rules(given)


def _datasets_of(agent: TrainedAgent, datasets: Sequence[SplitDataSet]) -> list[SplitDataSet]:
    return [one for one in datasets if one.symbol in agent.symbols and one.fold == agent.fold]


def _dataset_of(agent: TrainedAgent, datasets: Sequence[SplitDataSet]) -> SplitDataSet | None:
    found = _datasets_of(agent, datasets)
    return found[0] if len(found) == 1 else None


def _tags_of(agent: TrainedAgent, datasets: Sequence[SplitDataSet]) -> dict[str, str]:
    """Returns what identifies an agent's data; an agent of several symbols has only their names."""
    dataset = _dataset_of(agent, datasets)
    if dataset is None:
        return {names.TAG_SYMBOLS: ",".join(agent.symbols)}
    return Market.of(dataset).tags()
