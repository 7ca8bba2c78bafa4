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
TRIAL_END: Final = "trial_end"
SWEEP_END: Final = "sweep_end"
LOSS: Final = "loss"


class Open(TypedDict):
    """Where to deliver; always the first event. Never holds a credential."""

    tracking_uri: str | None
    registry_uri: str | None
    experiment_name: str | None
    experiment_id: str | None
    artifact_location: str | None


class Sweep(TypedDict):
    """The sweep this driver runs: becomes the parent run, or reopens it after a restore."""

    sweep_id: str
    epoch: int
    name: str
    tags: dict[str, str]
    diff: NotRequired[str]  # `git diff HEAD` of a dirty work tree


class Trial(TypedDict):
    """A trial starts, or starts again: becomes a child run, or reopens it."""

    name: str
    params: dict[str, str]
    tags: dict[str, str]
    config: NotRequired[object]  # the full configuration, redacted
    resumed_step: int


class Result(TypedDict):
    """One result of a trial: finite values only, on the env-steps axis."""

    step: int
    metrics: dict[str, float]
    tags: NotRequired[dict[str, str]]  # alerts raised by this result


class Release(TypedDict):
    """The trial's held results up to an event, inclusive, are covered by a checkpoint: they may be published."""

    upto: int


class Hparams(TypedDict):
    """Hyperparameters that changed while the trial ran (PBT, PB2); `initial` are their first values."""

    step: int
    changed: dict[str, str]
    initial: NotRequired[dict[str, str]]
    donor: NotRequired[str]  # the trial whose checkpoint this one goes on from


class TrialEnd(TypedDict):
    """A trial is over. `folders` maps an artifact folder to where its files are."""

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
