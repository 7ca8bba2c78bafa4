"""How a sweep's trials were tracked: written beside Tune's own files, so that any reader of them says the same.

Tune keeps neither the sweep's tags nor the algorithm's defaults, without which nobody can tell which of a
configuration's hundreds of keys identify a trial.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.trials.identity import RUN_NAME, check_run_name
from drl_ray_tracking.trials.metrics import MetricSelection, checked_globs


@dataclass(frozen=True)
class Defaults:
    """An algorithm's default configuration: as `jsonable` names its code objects, and as Tune writes them to files."""

    named: Mapping[str, Any] = field(default_factory=dict)
    written: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Tracked:
    """What a trial's run is made with, beside the trial itself.

    Attributes:
        tags: on every run of the sweep.
        run_name: the pattern of trials' names, see `TrialIdentity.run_name`.
        selection: which metrics are published.
        param_include, param_exclude: see `identifying_parameters`.
        defaults: of the algorithm, as this package's tracker knew them.
    """

    tags: Mapping[str, str] = field(default_factory=dict)
    run_name: str = RUN_NAME
    selection: MetricSelection = field(default_factory=MetricSelection)
    param_include: tuple[str, ...] = ()
    param_exclude: tuple[str, ...] = ()
    defaults: Defaults = field(default_factory=Defaults)

    def to_text(self) -> str:
        """Returns JSON that `from_text` restores."""
        selection = self.selection
        return json.dumps(
            {
                "tags": dict(self.tags),
                "run_name": self.run_name,
                "names": selection.names,
                "include": selection.include,
                "exclude": selection.exclude,
                "param_include": self.param_include,
                "param_exclude": self.param_exclude,
                "defaults": self.defaults.named,
                "defaults_written": self.defaults.written,
            }
        )

    @classmethod
    def from_text(cls, text: str) -> Tracked | None:
        """Restores what `to_text` returned; None where it is not that."""
        try:
            told = json.loads(text)
            check_run_name(told["run_name"])
            return cls(
                tags={str(key): str(value) for key, value in told["tags"].items()},
                run_name=told["run_name"],
                selection=MetricSelection(told["names"], tuple(told["include"]), tuple(told["exclude"])),
                param_include=checked_globs("param_include", told["param_include"]),
                param_exclude=checked_globs("param_exclude", told["param_exclude"]),
                defaults=Defaults(dict(told["defaults"]), dict(told["defaults_written"])),
            )
        except (ValueError, KeyError, TypeError, AttributeError, ConfigurationError):
            return None
