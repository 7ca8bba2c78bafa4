"""THE vocabulary: names of metrics, tags, parameters and files, and how one name becomes another.

Everything that crosses a room goes by a name from here: the capture side writes Tune result paths, the
tracking side publishes MLflow names, the analysis side accepts either. Pure standard library.

What a run in MLflow carries
    Metrics: `train/...`, `eval/...` (episodes and trading), `learner/<module>/...`, `stability/...`,
    `progress/...`, `perf/...`, `hparam/<name>` (a parameter that changed while the trial ran, from its first
    value on), and on the parent run `tracker/...` (lag, queue, retries, refused runs, lost events) and
    `system/<node>/...` (percent and GB, over seconds since the driver started).
    Artifacts: the files listed under "files" below; what `log_artifact` was given stands where it was told to.
    Parameters: the search space and what differs from the algorithm's defaults.
    Tags: the TAG_... below, with what each means; a trial that changed has `hparam.<name>` with the last value;
    `drl.alert.<what>` is one of collapsed, entropy_collapsed, non_finite_losses and learning_rate (a learner's
    optimizer does not use the configured rate).

What the user chooses (keywords of `MLflowTrackingCallback`)
    `names`, `include`, `exclude` for metrics; `param_include`, `param_exclude` for parameters; `tags` on every
    run; `run_name`, a pattern of {algorithm} {market} {timeframe} {fold} {seed} {hash} {trial_id} {env}; `sweep_name`;
    `artifact_location`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Final

# --- keys of a Tune result that RLlib writes -----------------------------------------------------------
ENV_RUNNERS: Final = "env_runners"
EVALUATION: Final = "evaluation"
LEARNERS: Final = "learners"
LIFETIME_STEPS: Final = "num_env_steps_sampled_lifetime"
ITERATION: Final = "training_iteration"

# --- keys of a Tune result that the capture side writes ------------------------------------------------
TRANSPORT: Final = "drl_transport"  # records on their way to the Algorithm process; never in a result
SUMMARIES: Final = "summaries"
SERIES: Final = "series"
CARRY: Final = "drl_objective_carry"
CURVE: Final = "drl_learning_curve"  # carried from iteration to iteration; never in a result
STABILITY: Final = "stability"
RULES: Final = "rules"  # rules/passed (1 or 0), and what rules are about that no other metric has
SYSTEM: Final = "system"  # on the parent run: what every node is busy with
CAPTURE_ERRORS: Final = "capture/errors"
OBJECTIVE_STATE: Final = "objective_state"
EVALUATED: Final = "evaluated"
WEIGHTS_STEP: Final = "weights_step"
TRADING_SOURCE: Final = "trading_source"  # a text: which source the trading columns came from

OBJECTIVE_NONE: Final = 0.0
OBJECTIVE_FRESH: Final = 1.0
OBJECTIVE_CARRIED: Final = 2.0
OBJECTIVE_UNDEFINED: Final = 3.0

# --- MLflow tags ---------------------------------------------------------------------------------------
TAG_ROLE: Final = "drl.role"  # "sweep" on the parent, "trial" on a child, "fold" between them in a walk-forward
TAG_CONTINUED_FROM: Final = "drl.continued_from"  # the checkpoint or model whose weights training began with
TAG_CONTINUED_RUN: Final = "drl.continued_from.run_id"  # the run that checkpoint is of, where that is known
TAG_CONTINUED_STEP: Final = "drl.continued_from.step"  # its env steps
TAG_MANUAL: Final = "drl.manual"  # "true" on what ExperimentService made: a session is its sweep
TAG_NOTE: Final = "mlflow.note.content"  # what MLflow shows as a run's description
TAG_SESSION: Final = "drl.session"  # of a manual run: the name of its session
TAG_SESSION_END: Final = "drl.session_end"  # on a session: Unix ms at which a process last spoke, and how it ended
TAG_SWEEP_ID: Final = "drl.sweep_id"
TAG_TRIAL_ID: Final = "drl.trial_id"
TAG_FOLD: Final = "drl.fold"  # of a walk-forward: its trials stand below a run of their fold
TAG_AGENT: Final = "drl.agent"  # which of a sweep's agents a trial is one of
TAG_VERDICT: Final = "drl.verdict"  # + "." + agent, on a walk-forward's parent: what its test bars say
TAG_SWEEP_RUN: Final = "drl.sweep_run_id"  # on a trial below a fold, or a run below another: the run of its sweep
TAG_EPOCH: Final = "drl.epoch"
TAG_ATTEMPTS: Final = "drl.attempts"
TAG_CONFIG_HASH: Final = "drl.config_hash"
TAG_SEED: Final = "drl.seed"
TAG_ALGORITHM: Final = "drl.algorithm"
TAG_ENV: Final = "drl.env"
TAG_SYMBOLS: Final = "drl.symbols"
TAG_TIMEFRAME: Final = "drl.timeframe"
TAG_DATA_DIGEST: Final = "drl.data_digest"
TAG_WINDOW_ID: Final = "drl.window_id"
TAG_WINDOW_BARS: Final = "drl.window_bars"  # "first last": when its first and last bar end, Unix seconds
TAG_CAPTURE: Final = "drl.capture"
TAG_TRADING_SOURCE: Final = "drl.trading_source"
TAG_RAY_VERSION: Final = "drl.ray_version"
TAG_JOB_ID: Final = "drl.job_id"
TAG_SUBMISSION_ID: Final = "drl.submission_id"
TAG_NODE: Final = "drl.node"
TAG_CLUSTER: Final = "drl.cluster_resources"
TAG_STORAGE: Final = "drl.storage_path"
TAG_OBJECTIVE: Final = "drl.objective"
TAG_OBJECTIVE_MODE: Final = "drl.objective_mode"
TAG_PERIODS_PER_YEAR: Final = "drl.periods_per_year"
TAG_FEATURES: Final = "drl.feature_config_hash"
TAG_ALERT: Final = "drl.alert"  # + ".collapsed" and so on: the env steps at which it was first raised
TAG_END_REASON: Final = "drl.end_reason"  # one of the END_... below
TAG_HEARTBEAT: Final = "drl.heartbeat"  # on the parent: Unix ms at which the sweep's courier was last alive
TAG_LINEAGE: Final = "drl.lineage"  # JSON, a list of [started_ms, step, donor trial id, [changed parameters]]
TAG_PUBLISH: Final = "drl.publish"  # "checkpointed" where results without a checkpoint are left out
TAG_IMPORTED: Final = "drl.imported"  # the directory an import was read from
TAG_ERROR: Final = "drl.error"
TAG_TEST_EVALUATIONS: Final = "drl.test_evaluations"  # + "." + window id, on an experiment: JSON, see analysis.budget
TAG_HISTORIES: Final = "drl.histories"  # JSON, the seal of HISTORIES_ARTIFACT; empty: reopened since, see trials.sealed
TAG_BUNDLES: Final = "drl.histories_of_trials"  # on the parent: JSON, names of zip files with its trials' histories
TAG_DEGRADED: Final = "tracking.degraded"
TAG_LEFT_OUT: Final = "tracking.files_left_out"  # + "." + which: why files of a run are not among its artifacts

# --- MLflow tags of checkpoints: they are on models, not on runs ----------------------------------------
TAG_CHECKPOINT: Final = "drl.checkpoint"  # what a checkpoint is found by: a hash of its run, URI and step
TAG_CHECKPOINT_URI: Final = "drl.checkpoint.uri"  # where Tune keeps it
TAG_CHECKPOINT_STEP: Final = "drl.checkpoint.step"  # env steps
TAG_CHECKPOINT_ITERATION: Final = "drl.checkpoint.iteration"
TAG_CHECKPOINT_DIGEST: Final = "drl.checkpoint.digest"  # sha256 over its files' names and contents
TAG_CHECKPOINT_SCORE: Final = "drl.checkpoint.score"  # what uploads are kept by: higher is better
TAG_CHECKPOINT_GONE: Final = "drl.checkpoint.gone"  # Tune has deleted it: where that was noticed
TAG_MODEL_ROLE: Final = "drl.model.role"  # MODEL_POINTER or MODEL_UPLOADED
TAG_MODEL_SOURCE: Final = "drl.model.source"  # on an upload: the id of its pointer
TAG_MODEL_RUN: Final = "drl.model.run"  # the trial's run
TAG_MODEL_LOADABLE: Final = "drl.model.loadable"  # on an upload: "true", or why it is only files
MODEL_POINTER: Final = "pointer"
MODEL_UPLOADED: Final = "uploaded"
TAG_MODEL_PARENT: Final = "drl.model.parent"  # on a version: the model or checkpoint whose weights training began with
TAG_MODEL_BEFORE: Final = "drl.model.champion_before"  # on a version: the version that was champion before it
TAG_MODEL_VERSION: Final = "drl.model.semantic_version"
TAG_RUN: Final = "drl.run_id"  # on a version: the trial it comes from
TAG_PROMOTION: Final = "drl.promotion"  # on a version: "champion", or "refused" and why
TAG_GATE: Final = "drl.gate"  # + ".min_trades" and so on: "passed" or "failed", value and threshold
TAG_RULES: Final = "drl.rules"  # "passed", or "failed: " and which
TAG_RULE: Final = "drl.rule"  # + ".max_daily_loss" and so on: "passed" or "failed", value and threshold
ROLE_SWEEP: Final = "sweep"
ROLE_TRIAL: Final = "trial"
ROLE_FOLD: Final = "fold"

# --- why a run ended: values of TAG_END_REASON ---------------------------------------------------------
END_COMPLETED: Final = "completed"  # the trainable returned
END_CRITERION: Final = "stop criterion"  # a threshold of the sweep's `stop` was reached
END_SCHEDULER: Final = "scheduler"  # removed while paused, as HyperBand does
# Stopped at one of its results, below every threshold. Tune tells a callback no difference between its
# scheduler (ASHA, median stopping), a Stopper object and a trainable that sets `done` by itself.
END_STOPPED: Final = "scheduler or stopper"
END_SWEEP_STOPPED: Final = "sweep stopped"  # with the whole sweep: time budget, Stopper.stop_all, fail_fast
END_ERROR: Final = "error"
END_INTERRUPTED: Final = "interrupted"  # SIGINT; Tune.restore takes the trial up again
END_DRIVER_DIED: Final = "driver died"  # SIGTERM, SIGKILL, job stop: written by the courier
END_NOT_YET: Final = "running"  # taken for dead, and back
END_RECONCILED: Final = "no heartbeat"  # written by `drl-track reconcile`

# --- files -----------------------------------------------------------------------------------------------
IDENTITY_FILE: Final = "drl_sweep.json"  # in Tune's experiment directory
SWEEP_FILE: Final = "drl_sweep.yaml"  # beside it: the configuration `drl-track train` was begun with
TRIALS_FILE: Final = "drl_trials.json"  # beside it: how the sweep's trials are tracked, see trials.tracked
TAGS_FILE: Final = "drl_tags.json"  # in a trial's folder: tags of its own, see `trial_tags` of the callback
SERIES_DIR: Final = "drl_series"  # in a trial's storage: one Parquet file per evaluation
SERIES_ARTIFACT: Final = "series"  # artifact folder of a run: the next three
SERIES_FILE: Final = "evaluations.parquet"  # every bar of every evaluation
BEST_EPISODE_FILE: Final = "best_episode.parquet"  # the evaluation episode with the highest return, all columns
WORST_EPISODE_FILE: Final = "worst_episode.parquet"
FILES_DIR: Final = "drl_files"  # in a trial's storage: what `log_artifact` left for the run, as it is to appear there
TENSORBOARD_ARTIFACT: Final = "tensorboard"  # artifact folder of a run: the event files that Tune's logger wrote
PICTURES_ARTIFACT: Final = "pictures"  # artifact folder of a run: drawn when a trial has ended
MATERIAL_FILE: Final = "run.json"  # what a run's pictures are drawn from, beside its series; no artifact
SYMBOLS_ARTIFACT: Final = "symbols.csv"  # a row for each symbol of the last evaluation
HISTORIES_ARTIFACT: Final = "histories.parquet"  # every point of a trial's run, once it has ended
OUT_OF_SAMPLE_ARTIFACT: Final = "out_of_sample"  # on a walk-forward's parent: equity, agents, folds and bars, pooled
CHECKPOINT_FOLDER: Final = "checkpoint"  # what fetching a checkpoint's files is called; no artifact of a run
CONFIG_ARTIFACT: Final = "config.json"
DIFF_ARTIFACT: Final = "git.diff"
SWEEP_ARTIFACT: Final = "sweep.yaml"  # on the parent run: the configuration `drl-track train` was given, one agent
VERSIONS_ARTIFACT: Final = "versions.txt"  # on the parent run: every installed distribution, as name==version
ERROR_ARTIFACT: Final = "error.txt"

DEFAULT_METRIC: Final = "eval/trading/sharpe"
# Every evaluation has it, also where a KPI of it is undefined and so absent: which evaluations there were.
EVALUATION_MARKER: Final = "eval/weights_step"

_LEARNER_RENAMES: Final[Mapping[str, str]] = {
    "vf_loss": "value_loss",
    "vf_loss_unclipped": "value_loss_unclipped",
    "vf_explained_var": "value_explained_variance",
    "mean_kl_loss": "kl",
    "curr_kl_coeff": "kl_coefficient",
    "curr_entropy_coeff": "entropy_coefficient",
    "default_optimizer_learning_rate": "learning_rate",
    "gradients_default_optimizer_global_norm": "gradient_norm",
    "qf_mean": "q_mean",
    "qf_loss": "q_loss",
}
_LEARNER_KEPT: Final = frozenset(
    {
        *_LEARNER_RENAMES,
        "total_loss",
        "policy_loss",
        "entropy",
        "mean_pi_loss",
        "mean_vf_loss",
        "td_error_mean",
        "alpha_loss",
        "alpha_value",
        "critic_loss",
        "actor_loss",
    }
)
# What a trial's own picture of learning curves shows, the most wanted first.
LEARNING_CURVES: Final = (
    "train/episode/return_mean",
    "eval/episode/return_mean",
    "eval/trading/sharpe",
    "eval/trading/total_return",
    "eval/trading/max_drawdown",
    "learner/*/entropy",
    "learner/*/kl",
    "learner/*/policy_loss",
    "learner/*/value_loss",
    "learner/*/total_loss",
    "eval/action/*",
    "train/rllib/episode_return_mean",
    "eval/rllib/episode_return_mean",
)
USER_GROUP: Final = "user"
CAPTURED_GROUPS: Final = (
    "episode",
    "trading",
    "action",
    "reward",
    "undefined",
    "capture",
    "module",
    "agent",
    USER_GROUP,
)
_TOP_LEVEL: Final[Mapping[str, str]] = {
    ITERATION: "progress/iteration",
    "time_total_s": "progress/wall_time_s",
    LIFETIME_STEPS: "progress/env_steps",
    OBJECTIVE_STATE: "progress/objective_state",
    "time_this_iter_s": "perf/iteration_time_s",
    "timers/env_runner_sampling_timer": "perf/sampling_time_s",
    "timers/learner_update_timer": "perf/learner_update_time_s",
    "timers/evaluation_iteration": "perf/evaluation_time_s",
    "env_runners/num_env_steps_sampled_lifetime_throughput/throughput_since_last_reduce": "perf/env_steps_per_s",
    "env_runners/num_episodes_lifetime": "progress/episodes",
    "evaluation/weights_step": "eval/weights_step",
    "evaluation/windows_missing": "eval/windows_missing",
    "evaluation/windows_repeated": "eval/windows_repeated",
    "fault_tolerance/num_remote_worker_restarts": "perf/env_runner_restarts",
}
# In every Tune result, but not in MLflow unless `include` asks: counts of what is undefined, and shapes of
# distributions that nobody follows over time. The allow-list is to stay at tens of charts.
LESS_READ: Final = (
    "*/undefined/*",
    "*/agent/*",
    "*/episode/length_[smp]*",
    "*/episode/return_p*",
    "*/episode/calmar_mean",
    "*/episode/max_drawdown_p95",
    "*/trading/nan_bars",
    "*/trading/open_trades",
    "*/trading/breakeven_trades",
    "*/trading/tail_ratio",
    "*/trading/tracking_error",
    "*/trading/sqn",
    "*/trading/skewness",
    "*/trading/kurtosis",
    "train/trading/cagr",
    "train/trading/alpha",
    "train/trading/beta",
    "train/trading/information_ratio",
    "train/trading/omega",
    "train/trading/sharpe_per_period",
    "train/trading/expected_shortfall_95",
    "train/trading/value_at_risk_95",
    "train/trading/payoff_ratio",
    "train/trading/expectancy",
    "learner/*/value_loss_unclipped",
)
# RLlib's own means of means, published only where no exact episode statistics exist.
_RLLIB_FALLBACK: Final = (
    "episode_return_mean",
    "episode_return_max",
    "episode_return_min",
    "episode_len_mean",
)


def sweep_run(tags: Mapping[str, str]) -> str | None:
    """Returns the run of a trial's sweep, whether its run stands right below or below a fold's; None without one."""
    return tags.get(TAG_SWEEP_RUN) or tags.get("mlflow.parentRunId")


def flatten(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (slash-joined path, leaf) for every leaf of a nested mapping, in its own order."""
    for key, value in nested.items():
        # Floats first: asking them whether they are mappings is what would take the time.
        if type(value) is not float and isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def nest(target: dict[str, Any], path: str, value: Any) -> None:
    """Sets the leaf at a slash-joined path, creating the mappings on the way."""
    *parents, leaf = path.split("/")
    for parent in parents:
        target = target.setdefault(parent, {})
    target[leaf] = value


@lru_cache(maxsize=8192)
def published_name(path: str) -> str | None:
    """Returns the MLflow name of an RLlib result path, or None for a key nobody reads.

    The allow-list is the vocabulary itself: tens of names out of several hundred keys.
    """
    direct = _TOP_LEVEL.get(path)
    if direct is not None:
        return direct
    parts = path.split("/")
    if parts[0] == STABILITY and len(parts) == 2:
        return path
    if parts[0] == LEARNERS and len(parts) == 3:
        module, key = parts[1], parts[2]
        if key in _LEARNER_KEPT:
            return f"learner/{module}/{_LEARNER_RENAMES.get(key, key)}"
        return None
    for prefix, group in ((f"{ENV_RUNNERS}/", "train"), (f"{EVALUATION}/{ENV_RUNNERS}/", "eval")):
        if path.startswith(prefix):
            rest = path[len(prefix) :]
            if rest.split("/", 1)[0] in CAPTURED_GROUPS:
                return f"{group}/{rest}"
            if rest in _RLLIB_FALLBACK:
                return f"{group}/rllib/{rest}"
            return None
    return None


def tune_path(name: str) -> str:
    """Returns the Tune result path of a metric given by either of its names.

    `eval/trading/sharpe` and `evaluation/env_runners/trading/sharpe` are the same KPI; a name that is
    in neither form is returned as it is, so that other trainables' own keys keep working.
    """
    group, _, rest = name.partition("/")
    if group in ("train", "eval") and rest:
        for path, published in _TOP_LEVEL.items():
            if published == name:
                return path
        rest = rest.removeprefix("rllib/")
        return f"{ENV_RUNNERS}/{rest}" if group == "train" else f"{EVALUATION}/{ENV_RUNNERS}/{rest}"
    for path, published in _TOP_LEVEL.items():
        if published == name:
            return path
    if group == "learner":
        module, _, key = rest.partition("/")
        for original, renamed in _LEARNER_RENAMES.items():
            if renamed == key:
                key = original
        return f"{LEARNERS}/{module}/{key}"
    return name


def mlflow_name(name: str) -> str:
    """Returns the MLflow name of a metric given by either of its names (see `tune_path`)."""
    return published_name(name) or name


def is_rllib_result(result: Mapping[str, Any]) -> bool:
    """Tells whether a Tune result comes from an RLlib Algorithm on the new API stack."""
    return LIFETIME_STEPS in result and (ENV_RUNNERS in result or LEARNERS in result)


@lru_cache(maxsize=8192)
def selected(name: str, include: tuple[str, ...], exclude: tuple[str, ...]) -> bool:
    """Tells whether a metric name passes the include and exclude globs.

    No include means everything but `LESS_READ`; `("*",)` means everything.
    """
    if any(fnmatchcase(name, pattern) for pattern in exclude):
        return False
    if include:
        return any(fnmatchcase(name, pattern) for pattern in include)
    return not any(fnmatchcase(name, pattern) for pattern in LESS_READ)


_PLAIN = re.compile(r"[\w\-:]+(/[\w\-:]+)*")
_ILLEGAL = re.compile(r"[^\w\-.:/ ]")
_LEADING_DOTS = re.compile(r"^(\.\.+|\.$)")
_OUTER_SPACE = re.compile(r"^ +| +$")
_MAX_KEY = 250


@lru_cache(maxsize=8192)
def legal_metric_name(name: str) -> str:
    """Returns a name MLflow accepts; reversible by `original_metric_name` unless it had to be cut.

    An illegal character becomes `_xHH_` (its code point in hexadecimal), and so does what MLflow or this
    escape would take for something else: an underscore before an x, leading dots of a path part, a space at
    either end. An empty path part becomes `_x_`.
    """
    if _PLAIN.fullmatch(name) and "_x" not in name:
        legal = name
    else:
        legal = _ILLEGAL.sub(lambda match: _escape(match.group()), re.sub("_(?=x)", _escape("_"), name))
        legal = "/".join(
            _LEADING_DOTS.sub(lambda match: _escape(match.group()), part) or "_x_" for part in legal.split("/")
        )
        legal = _OUTER_SPACE.sub(lambda match: _escape(match.group()), legal)
    if len(legal) > _MAX_KEY:
        legal = f"{legal[: _MAX_KEY - 9]}-{hash_text(name):08x}"
    return legal


_ILLEGAL_IN_FILE = re.compile(r"[%#?:\\\x00-\x1f\x7f\ud800-\udfff]")
_ESCAPED = re.compile(r"_x([0-9a-f]*)_")
_LONGEST_FILE_NAME = 255  # bytes, of one part of a path, on the file systems people have


def legal_artifact_path(path: str) -> str:
    """Returns a path below a run's artifacts that MLflow's client, servers and file systems take as it is.

    MLflow's client does not quote paths: over HTTP `#` and `?` cut a name off, `%2f` becomes a folder. Such
    characters become `_xHH_`, as in `legal_metric_name`; a part too long for a file system is cut and hashed.
    """
    return "/".join(_legal_file_name(part) for part in path.split("/") if part not in ("", "."))


def leads_out(folder: str) -> bool:
    """Tells whether an artifact folder that somebody gave leads out of the run's artifacts."""
    return folder.startswith("/") or ".." in folder.split("/")


def _legal_file_name(name: str) -> str:
    legal = name
    # A name that looks escaped is escaped, too, or it might be taken for another one.
    if _ILLEGAL_IN_FILE.search(name) or _ESCAPED.search(name) or name != name.strip(" ") or name == "..":
        legal = _ILLEGAL_IN_FILE.sub(lambda match: _escape(match.group()), re.sub("_(?=x)", _escape("_"), name))
        legal = _OUTER_SPACE.sub(lambda match: _escape(match.group()), legal)
        legal = _escape("..") if legal == ".." else legal
    if len(legal.encode()) > _LONGEST_FILE_NAME:
        suffix = f"-{hash_text(name):08x}"
        legal = legal.encode()[: _LONGEST_FILE_NAME - len(suffix)].decode(errors="ignore") + suffix
    return legal


def original_metric_name(legal: str) -> str:
    """Returns the name `legal_metric_name` was given."""
    return _ESCAPED.sub(lambda match: chr(int(match.group(1), 16)) if match.group(1) else "", legal)


def _escape(text: str) -> str:
    return "".join(f"_x{ord(character):x}_" for character in text)


def hparam_values(params: Mapping[str, str]) -> dict[str, float]:
    """Returns the metrics of those hyperparameters that are numbers; their keys are legal names."""
    found: dict[str, float] = {}
    for key, text in params.items():
        name = f"hparam/{key}"
        if len(name) > _MAX_KEY:
            name = f"{name[: _MAX_KEY - 9]}-{hash_text(name):08x}"
        try:
            number = finite(float(text))
        except ValueError:
            continue
        if number is not None:
            found[name] = number
    return found


def hash_text(text: str) -> int:
    """Returns a 32-bit hash of a text that is the same in every process (`hash()` is salted)."""
    value = 2166136261
    for byte in text.encode("utf-8", "surrogatepass"):
        value = ((value ^ byte) * 16777619) & 0xFFFFFFFF
    return value


def finite(value: Any) -> float | None:
    """Returns the value as a finite float, or None for anything else (bool counts as 0 or 1)."""
    if isinstance(value, (bool, int, float)):
        try:
            number = float(value)
        except OverflowError:
            return None
    elif hasattr(value, "dtype") and getattr(value, "ndim", 1) == 0:
        try:
            number = float(value)
        except (TypeError, ValueError):
            return None
    else:
        return None
    return number if math.isfinite(number) else None


def suggestion(given: str, allowed: list[str] | tuple[str, ...]) -> str:
    """Returns ' (did you mean X?)' for a near miss, else an empty string."""
    close = get_close_matches(given, list(allowed), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""
