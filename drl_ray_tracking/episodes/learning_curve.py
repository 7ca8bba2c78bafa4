"""A trial's learning curve followed online, in bounded memory: is training stable, and did it collapse?

Values are means of an iteration's episodes, in the order of env steps. The curve is kept at no more than
`CAPACITY` points: when it is full, neighbouring points are averaged in pairs, so that old and new parts
keep one resolution. Peak, drawdown and area are exact; dispersion is that of the kept points.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

CAPACITY: Final = 256
_LEAST_POINTS: Final = 8
_LOST_SHARE: Final = 0.5
_NOISE_FACTOR: Final = 2.0
_ENTROPY_SHARE: Final = 0.05


@dataclass(frozen=True)
class LearningCurve:
    """The curve so far; `empty()`, then `update` with each iteration.

    Attributes:
        points: (step, value) of the kept curve, each an average of `stride` iterations.
        stride: how many iterations a kept point averages.
        pending: (step, sum, count) of iterations not yet a point.
        first, last, peak: values; NaN before the first.
        first_step, last_step: env steps.
        area: integral of the value over env steps (trapezoids).
        drawdown: largest fall below the running peak.
        threshold_step: env steps when the value first reached the threshold; NaN if never or none is set.
        first_entropy, last_entropy: policy entropy; NaN where not reported.
        non_finite_losses: iterations in which the learner reported a loss that was not finite.
    """

    points: tuple[tuple[float, float], ...] = ()
    stride: int = 1
    pending: tuple[float, float, int] = (0.0, 0.0, 0)
    first: float = math.nan
    last: float = math.nan
    peak: float = math.nan
    first_step: float = math.nan
    last_step: float = math.nan
    area: float = 0.0
    drawdown: float = 0.0
    threshold_step: float = math.nan
    first_entropy: float = math.nan
    last_entropy: float = math.nan
    non_finite_losses: int = 0

    @classmethod
    def empty(cls) -> LearningCurve:
        """Returns the curve of no iteration."""
        return cls()

    def update(
        self,
        step: float,
        value: float | None,
        *,
        entropy: float | None = None,
        loss_is_finite: bool = True,
        threshold: float | None = None,
    ) -> LearningCurve:
        """Returns the curve with one more iteration.

        Args:
            step: lifetime env steps; not above the last one's means the value is left out (a repeat).
            value: mean return of the iteration's episodes; None or not finite where none ended.
            entropy: the learner's policy entropy.
            loss_is_finite: whether all losses of the iteration were.
            threshold: the value that counts as solved.
        """
        curve = replace(self, non_finite_losses=self.non_finite_losses + (not loss_is_finite))
        if entropy is not None and math.isfinite(entropy):
            first = entropy if math.isnan(self.first_entropy) else self.first_entropy
            curve = replace(curve, first_entropy=first, last_entropy=entropy)
        if value is None or not math.isfinite(value) or step <= self.last_step:
            return curve
        if math.isnan(self.first):
            curve = replace(curve, first=value, first_step=step, peak=value)
        else:
            area = self.area + (step - self.last_step) * (value + self.last) / 2
            peak = max(self.peak, value)
            curve = replace(curve, area=area, peak=peak, drawdown=max(self.drawdown, peak - value))
        if threshold is not None and value >= threshold and math.isnan(self.threshold_step):
            curve = replace(curve, threshold_step=step)
        return replace(curve, last=value, last_step=step)._keep(step, value)

    def _keep(self, step: float, value: float) -> LearningCurve:
        _, total, count = self.pending
        total, count = total + value, count + 1
        if count < self.stride:
            return replace(self, pending=(step, total, count))
        points = (*self.points, (step, total / count))
        stride = self.stride
        if len(points) == CAPACITY:
            points = tuple(
                (later[0], (earlier[1] + later[1]) / 2)
                for earlier, later in zip(points[::2], points[1::2], strict=True)
            )
            stride *= 2
        return replace(self, points=points, stride=stride, pending=(0.0, 0.0, 0))

    @property
    def dispersion(self) -> float:
        """Inter-quartile range of the kept curve's first differences: detrended (Chan et al. 2020); NaN if short."""
        if len(self.points) < _LEAST_POINTS:
            return math.nan
        low, high = np.quantile(np.diff([value for _, value in self.points]), [0.25, 0.75])
        return float(high - low)

    @property
    def collapsed(self) -> bool:
        """Whether more than half of the gain from first to peak is lost again, and the fall is beyond noise."""
        noise = self.dispersion
        if math.isnan(noise):
            return False
        recent = [value for _, value in self.points[-_LEAST_POINTS // 2 :]]
        lost = self.peak - sum(recent) / len(recent)
        return self.peak > self.first and lost > _LOST_SHARE * (self.peak - self.first) and lost > _NOISE_FACTOR * noise

    @property
    def entropy_collapsed(self) -> bool:
        """Whether the policy's entropy fell below a twentieth of its first value (where that was positive)."""
        return self.first_entropy > 0 and self.last_entropy < _ENTROPY_SHARE * self.first_entropy

    def compute(self) -> dict[str, float]:
        """Returns what is defined so far, under flat names; flags are 0 or 1.

        `dispersion` and `drawdown` are in units of the return; `mean_value` is the area under the curve over
        the env steps it spans.
        """
        values = {
            "collapsed": float(self.collapsed),
            "entropy_collapsed": float(self.entropy_collapsed),
            "non_finite_losses": float(self.non_finite_losses),
            "dispersion": self.dispersion,
            "steps_to_threshold": self.threshold_step,
        }
        if not math.isnan(self.first):
            values["drawdown"] = self.drawdown
        span = self.last_step - self.first_step
        if span > 0:
            values["mean_value"] = self.area / span
        return {key: value for key, value in values.items() if math.isfinite(value)}

    def to_text(self) -> str:
        """Returns the state as JSON: it goes into checkpoints, which must load without this package."""
        return json.dumps({name: getattr(self, name) for name in self.__dataclass_fields__})

    @classmethod
    def from_text(cls, text: object) -> LearningCurve:
        """Returns what `to_text` wrote; anything else is an empty curve."""
        try:
            state = json.loads(text) if isinstance(text, str) else None
        except ValueError:
            state = None
        if not isinstance(state, dict) or set(state) != set(cls.__dataclass_fields__):
            return cls()
        return cls(**{**state, "points": tuple(map(tuple, state["points"])), "pending": tuple(state["pending"])})
