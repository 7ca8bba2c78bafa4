"""Searches in pure noise, and with a real edge: what the best of everything that was looked at looks like.

Bars are independent Gaussian. Of these, mean and variance are independent and of known distribution, so that only
the chosen evaluation's bars have to be drawn: exactly as if all had been.

`python -m tests.analysis.noise PICTURE.png` draws what the README's statistics page shows.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np

from drl_ray_tracking.analysis.inputs import FloatArray

PERIODS_PER_YEAR = 252


@dataclass(frozen=True)
class Search:
    """Sweeps of trials, each evaluated so often on the same bars; the best single evaluation is chosen."""

    sweeps: int = 10
    trials: int = 10
    evaluations: int = 50
    bars: int = 500
    edge: float = 0.0  # true Sharpe ratio a bar, of every trial
    alike: float = 0.0  # correlation of a trial's evaluations

    @property
    def candidates(self) -> int:
        return self.sweeps * self.trials * self.evaluations

    def run(self, rng: np.random.Generator) -> tuple[FloatArray, float]:
        """Returns the bars of the best evaluation, and the variance of the Sharpe ratio over all of them."""
        shape = (self.sweeps * self.trials, self.evaluations)
        shared = rng.normal(size=(shape[0], 1))
        scores = np.sqrt(self.alike) * shared + np.sqrt(1.0 - self.alike) * rng.normal(size=shape)
        mean = self.edge + scores / np.sqrt(self.bars)
        deviation = np.sqrt(rng.chisquare(self.bars - 1, size=shape) / (self.bars - 1))
        sharpe = mean / deviation
        best = np.unravel_index(np.argmax(sharpe), shape)
        shape_of_best = rng.normal(size=self.bars)
        shape_of_best = (shape_of_best - shape_of_best.mean()) / shape_of_best.std(ddof=1)
        return mean[best] + deviation[best] * shape_of_best, float(sharpe.var(ddof=1))


def annualised(returns_T: FloatArray) -> float:
    return float(returns_T.mean() / returns_T.std(ddof=1) * np.sqrt(PERIODS_PER_YEAR))


def draw(path: str) -> None:
    """Draws the best Sharpe ratio of 1,000 searches in noise, and what the verdict takes for luck."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from drl_ray_tracking.analysis.selection import deflated_sharpe_ratio, expected_maximum_sharpe

    rng, search = np.random.default_rng(1), Search()
    found = [search.run(rng) for _ in range(1000)]
    best = [annualised(returns) for returns, _ in found]
    luck = np.mean([expected_maximum_sharpe(search.candidates, variance) for _, variance in found])
    dsr = [
        deflated_sharpe_ratio(annualised(returns) / np.sqrt(PERIODS_PER_YEAR), search.bars, 0.0, 3.0, n, variance)
        for n in (search.trials, search.candidates)
        for returns, variance in found
    ]
    naive, honest = (np.mean(np.array(half) >= 0.95) for half in (dsr[:1000], dsr[1000:]))
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    axes.hist(best, bins=40, color="#4477aa")
    axes.axvline(luck * np.sqrt(PERIODS_PER_YEAR), color="#cc3311", label="expected of the best of 5,000 by luck")
    axes.set(
        xlabel="annualised Sharpe ratio of the best evaluation",
        ylabel="searches",
        title="1,000 searches without any skill: ten sweeps, 10 trials, 50 evaluations, two years of bars",
    )
    axes.legend(frameon=False)
    axes.text(
        0.99,
        0.55,
        f"called significant:\n{naive:.0%} counting the 10 trials of one sweep\n{honest:.1%} counting every evaluation",
        transform=axes.transAxes,
        ha="right",
    )
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    draw(sys.argv[1])
