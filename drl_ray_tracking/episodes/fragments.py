"""Joins consecutive fragments of ONE episode, in order, into the record of the whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from drl_ray_tracking.episodes.record import EpisodeRecord
from drl_ray_tracking.errors import EpisodeError

_PER_STEP = ("actions", "position", "fee", "slippage", "traded", "leverage")
_PER_MARK = ("equity", "price", "timestamp")


def join_fragments(chunks: Sequence[EpisodeRecord]) -> EpisodeRecord:
    """Merges fragments that follow each other: T is the sum of theirs.

    The first mark of a fragment (equity, price, timestamp) is the last mark of the one before and replaces
    it. Returns, lengths and reward components add up; the end is the last fragment's.

    Raises:
        EpisodeError: there is no fragment, one before the last has ended, or they disagree on labels,
            conventions or on what they report; all contradictions are named.
    """
    if not chunks:
        raise EpisodeError("join_fragments needs at least one fragment but got none")
    first, last = chunks[0], chunks[-1]
    problems = [
        f"fragment {i} is terminated or truncated but is not the last"
        for i, chunk in enumerate(chunks[:-1])
        if chunk.terminated or chunk.truncated
    ]
    problems += [
        f"{name} of fragment {i} differ from those of fragment 0"
        for name in ("labels", "conventions")
        for i, chunk in enumerate(chunks)
        if getattr(chunk, name) != getattr(first, name)
    ]
    for name in (*_PER_STEP, *_PER_MARK, "trades"):
        reporting = sum(getattr(chunk, name) is not None for chunk in chunks)
        if 0 < reporting < len(chunks):
            problems.append(f"{name} is in {reporting} of {len(chunks)} fragments: give it in all or in none")
    if first.actions is not None and len({_action_kind(chunk) for chunk in chunks}) > 1:
        problems.append("actions differ in kind or number of dimensions between fragments")
    if problems:
        raise EpisodeError("fragments do not join: " + "; ".join(problems))
    components: Counter[str] = Counter()
    for chunk in chunks:
        components.update(chunk.reward_components)
    arrays: dict[str, Any] = {}
    for name in _PER_STEP:
        if getattr(first, name) is not None:
            arrays[name] = np.concatenate([getattr(chunk, name) for chunk in chunks])
    for name in _PER_MARK:
        if getattr(first, name) is not None:
            parts = [getattr(chunk, name)[:-1] for chunk in chunks[:-1]]
            arrays[name] = np.concatenate([*parts, getattr(last, name)])
    return EpisodeRecord(
        episode_return=sum(chunk.episode_return for chunk in chunks),
        length=sum(chunk.length for chunk in chunks),
        terminated=last.terminated,
        truncated=last.truncated,
        reward_components=dict(components),
        labels=first.labels,
        trades=None if first.trades is None else tuple(t for chunk in chunks for t in chunk.trades or ()),
        conventions=first.conventions,
        **arrays,
    )


def _action_kind(chunk: EpisodeRecord) -> tuple[str, tuple[int, ...]] | None:
    return None if chunk.actions is None else (chunk.actions.dtype.kind, chunk.actions.shape[1:])
