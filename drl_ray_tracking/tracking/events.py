"""What the driver tells the courier: the kinds of journal events and the JSON each carries.

The journal is the only thing the two processes share, so this file is their contract.
"""

from __future__ import annotations

from typing import Final, NotRequired, TypedDict

OPEN: Final = "open"
SWEEP: Final = "sweep"
TRIAL: Final = "trial"
RESULT: Final = "result"
HELD: Final = "held"  # a Result that waits for a checkpoint to cover it
RELEASE: Final = "release"
HPARAMS: Final = "hparams"
CHECKPOINT: Final = "checkpoint"
TRIAL_END: Final = "trial_end"
SWEEP_END: Final = "sweep_end"
FILES: Final = "files"
LOSS: Final = "loss"
EPISODE: Final = "episode"  # of a manual run
BULK: Final = frozenset({RESULT, HELD, EPISODE})  # what there may be very many of, and what may wait a little


class Open(TypedDict):
    """Where to deliver; always the first event. Never holds a credential."""

    tracking_uri: str | None
    registry_uri: str | None
    experiment_name: str | None
    experiment_id: str | None
    artifact_location: str | None


class CheckpointPolicy(TypedDict):
    """Which checkpoints are uploaded; every one becomes a pointer."""

    upload: str  # none | last | best | all
    keep: int | None  # per trial; None keeps all


class Sweep(TypedDict):
    """The sweep this driver runs: becomes the parent run, or reopens it after a restore."""

    sweep_id: str
    epoch: int
    name: str
    tags: dict[str, str]
    diff: NotRequired[str]  # `git diff HEAD` of a dirty work tree
    checkpoints: NotRequired[CheckpointPolicy]
    texts: NotRequired[dict[str, str]]  # artifact file -> what it says
    pictures: NotRequired[bool]  # whether those of each ended trial are drawn


class Trial(TypedDict):
    """A trial starts, or starts again: becomes a child run, or reopens it."""

    name: str
    params: dict[str, str]
    tags: dict[str, str]
    config: NotRequired[object]  # the full configuration, redacted
    resumed_step: int
    fold: NotRequired[str]  # its run stands below one of this fold, and that below the sweep's
    epoch: NotRequired[int]  # of this run alone, where it was resumed apart from its sweep
    parent: NotRequired[Above]  # the run it is nested below; without it, the sweep's


class Above(TypedDict):
    """A run that others are nested below; it may be another process's."""

    trial: str
    name: str


class Result(TypedDict):
    """One result of a trial: finite values only, on the env-steps axis."""

    step: int
    metrics: dict[str, float]
    tags: NotRequired[dict[str, str]]  # alerts raised by this result, and what a manual run sets
    params: NotRequired[dict[str, str]]  # of a manual run


class Episode(TypedDict):
    """One finished episode of a manual run; those of one pool are measured together."""

    split: str  # train | eval
    step: int
    pool: str
    summary: str  # see `episode_pools`


class Release(TypedDict):
    """The trial's held results up to an event, inclusive, are covered by a checkpoint: they may be published."""

    upto: int


class Hparams(TypedDict):
    """Hyperparameters that changed while the trial ran (PBT, PB2); `initial` are their first values."""

    step: int
    changed: dict[str, str]
    initial: NotRequired[dict[str, str]]
    donor: NotRequired[str]  # the trial whose checkpoint this one goes on from


class Saved(TypedDict):
    """A checkpoint in Tune's storage, as delivery remembers it."""

    name: str
    uri: str
    step: int
    iteration: int
    score: NotRequired[float]  # higher is better


class Checkpoint(Saved):
    """A trial saved a checkpoint; `metrics` are the values of the result it belongs to."""

    metrics: dict[str, float]


class Files(TypedDict):
    """Files for a run: everything in `path` goes into an artifact folder, and is then removed unless it `stays`."""

    folder: str
    path: str
    stays: NotRequired[bool]


class TrialEnd(TypedDict):
    """A trial is over. `folders` maps an artifact folder, or '' for the top, to where its files are."""

    status: str  # FINISHED | FAILED | KILLED
    tags: dict[str, str]
    params: NotRequired[dict[str, str]]
    folders: dict[str, str]
    traceback: NotRequired[str]


class SweepEnd(TypedDict):
    """The driver has nothing more to say."""

    status: str
    tags: dict[str, str]


class Loss(TypedDict):
    """Events that are not in the journal: the disk was full, or a segment was damaged."""

    count: int  # 0 where nobody can tell
    reason: str
