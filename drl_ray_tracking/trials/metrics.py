"""Which values of a Tune result are published, under which names, at which step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, get_args

from drl_ray_tracking import names
from drl_ray_tracking.errors import ConfigurationError

NameMode = Literal["vocabulary", "raw", "both"]
NON_FINITE: Final = "tracker/non_finite_values"
_MOST_PLANS: Final = 10_000
_FLOATS: Final = ("float16", "float32", "float64")


def checked_globs(setting: str, given: Sequence[str]) -> tuple[str, ...]:
    """Returns a setting's globs as a tuple.

    Raises:
        ConfigurationError: it is one text, or not all texts.
    """
    if isinstance(given, str) or not all(isinstance(glob, str) for glob in given):
        raise ConfigurationError(f"{setting}={given!r} must be a sequence of globs, such as ['train/*']")
    return tuple(given)


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
    # By (RLlib's, path): worked out once, since the same hundreds of paths come with every result.
    _plans: dict[tuple[bool, str], _Plan] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.names not in get_args(NameMode):
            raise ConfigurationError(f"names={self.names!r} is not one of {', '.join(get_args(NameMode))}")
        for setting in ("include", "exclude"):
            object.__setattr__(self, setting, checked_globs(setting, getattr(self, setting)))

    def select(self, result: Mapping[str, Any]) -> dict[str, float]:
        """Returns finite values by their published, legal names; how many were not finite is among them."""
        rllib = names.is_rllib_result(result)
        left_out = {"config"}
        if rllib and result.get(names.EVALUATED) is False:
            left_out.add(names.EVALUATION)
        told = {key: value for key, value in result.items() if key not in left_out or not isinstance(value, Mapping)}
        vocabulary: dict[str, float] = {}
        raw: dict[str, float] = {}
        non_finite = 0
        for path, value in names.flatten(told):
            plan = self._plans.get((rllib, path)) or self._planned(rllib, path)
            if not plan.known:
                continue
            number = names.finite(value)
            if number is None:
                non_finite += _is_number(value)
                continue
            if plan.published is not None:
                vocabulary[plan.published] = number
            if plan.raw is not None:
                raw[plan.raw] = number
        if "train/episode/return_mean" in vocabulary or "eval/episode/return_mean" in vocabulary:
            # RLlib's mean of means stands in only where there is no exact one.
            vocabulary = {key: value for key, value in vocabulary.items() if "/rllib/" not in key[:12]}
        if not self.include:
            vocabulary = _without_lone_symbol(vocabulary)
        chosen = {**raw, **vocabulary}
        if non_finite:
            chosen[NON_FINITE] = float(non_finite)
        return chosen

    def _planned(self, rllib: bool, path: str) -> _Plan:
        """Works out what becomes of a path, and remembers it."""
        name = names.published_name(path) if rllib and self.names != "raw" else None
        kept = not rllib or self.names != "vocabulary"
        published = name is not None and names.selected(name, self.include, self.exclude)
        # What people read less is left out of the vocabulary only: other keys are the user's.
        is_raw = kept and names.selected(path, self.include or ("*",), self.exclude)
        plan = _Plan(
            known=name is not None or kept,
            published=names.legal_metric_name(name) if published and name is not None else None,
            raw=names.legal_metric_name(path) if is_raw else None,
        )
        if len(self._plans) >= _MOST_PLANS:  # keys that are new with every result
            self._plans.clear()
        self._plans[rllib, path] = plan
        return plan


class _Plan(NamedTuple):
    """What becomes of the value at a path: its published name, its own name as a legal one, or neither.

    A value that is not finite is counted where its path is `known`, whatever the globs say.
    """

    known: bool
    published: str | None
    raw: str | None


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (getattr(value, "ndim", 1) == 0 and getattr(value, "dtype", "?") in _FLOATS)


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
        # Tune writes 0 where it knows no timesteps; lifetime steps are 0 until the first fragment is in.
        if number is not None and (number > 0 or key != "timesteps_total"):
            return int(number)
    return 0
