"""Which values of a Tune result are published, under which names, at which step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from drl_ray_tracking import names
from drl_ray_tracking.errors import ConfigurationError

NameMode = Literal["vocabulary", "raw", "both"]
NON_FINITE = "tracker/non_finite_values"


@dataclass(frozen=True)
class MetricSelection:
    """The user's choice of metrics.

    `names` concerns RLlib results only: the vocabulary's tens of names, RLlib's own hundreds, or both.
    `include` and `exclude` are globs on published names; no include means what people read, `("*",)` means
    everything. Other trainables keep every key as it is.
    """

    names: NameMode = "vocabulary"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.names not in get_args(NameMode):
            raise ConfigurationError(f"names={self.names!r} is not one of {', '.join(get_args(NameMode))}")

    def select(self, result: Mapping[str, Any]) -> dict[str, float]:
        """Returns finite values by their published, legal names; how many were not finite is among them."""
        rllib = names.is_rllib_result(result)
        stale = result.get(names.EVALUATED) is False
        chosen: dict[str, float] = {}
        non_finite = 0
        for path, value in names.flatten(result):
            if path.startswith("config/") or (stale and path.startswith(f"{names.EVALUATION}/")):
                continue
            published = []
            if rllib and self.names != "raw":
                name = names.published_name(path)
                if name is not None:
                    published.append(name)
            if not rllib or self.names != "vocabulary":
                published.append(path)
            if not published:
                continue
            number = names.finite(value)
            if number is None:
                non_finite += isinstance(value, float)
                continue
            for name in published:
                if names.selected(name, self.include, self.exclude):
                    chosen[names.legal_metric_name(name)] = number
        if "train/episode/return_mean" in chosen or "eval/episode/return_mean" in chosen:
            # RLlib's mean of means stands in only where there is no exact one.
            chosen = {key: value for key, value in chosen.items() if "/rllib/" not in key[:12]}
        if not self.include:
            chosen = _without_lone_symbol(chosen)
        if non_finite:
            chosen[NON_FINITE] = float(non_finite)
        return chosen


def _without_lone_symbol(chosen: dict[str, float]) -> dict[str, float]:
    """Leaves the `by_symbol` groups out where there is one symbol: they repeat the pooled values."""
    symbols = {key.split("/by_symbol/", 1)[1].rsplit("/", 1)[0] for key in chosen if "/by_symbol/" in key}
    if len(symbols) != 1:
        return chosen
    return {key: value for key, value in chosen.items() if "/by_symbol/" not in key}


def result_step(result: Mapping[str, Any]) -> int:
    """Returns the x axis of a result: lifetime env steps, else timesteps, else the iteration."""
    for key in (names.LIFETIME_STEPS, "timesteps_total", names.ITERATION):
        number = names.finite(result.get(key))
        if number is not None and (number > 0 or key == names.ITERATION):
            return int(number)
    return 0
