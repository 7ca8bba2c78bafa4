"""What tracking costs a sweep: CPU and wall clock of the same sweep untracked, with ours, with Ray's callback.

The variants are interleaved within one run; CPU seconds are the whole machine's (`/proc/stat`), so that Ray's
daemons, actors that have ended and the courier all count: run it on a machine that does nothing else. What the
courier does after the sweep has ended, drawing the pictures of its trials, is waited for and counted apart.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.sweep_variant import ITERATIONS
from tests.waiting import wait_until

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]
VARIANTS = ("untracked", "ours", "ray")
REPEATS = int(os.environ.get("BENCH_REPEATS", "3"))


def machine_cpu_s() -> float:
    """Returns CPU seconds the machine has spent so far outside idle and waiting."""
    user, nice, system, _idle, _iowait, irq, softirq, *_ = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def run(variant: str, folder: Path) -> dict[str, float]:
    folder.mkdir(parents=True)
    program = Path(__file__).with_name("sweep_variant.py")
    environment = {**os.environ, "DRL_TRACK_HOME": str(folder / "home")}
    before = machine_cpu_s()
    done = subprocess.run(
        [sys.executable, str(program), variant, str(folder)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    cpu = machine_cpu_s() - before
    assert done.returncode == 0, done.stderr[-3000:]
    journals = folder / "home" / "journals"
    wait_until(lambda: not journals.exists() or not any(journals.iterdir()), timeout_s=300, what="the courier is done")
    afterwards = machine_cpu_s() - before - cpu
    return {"cpu_s": cpu, "afterwards_cpu_s": afterwards, **json.loads(done.stdout.splitlines()[-1])}


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):7.1f} ({min(values):.1f} to {max(values):.1f})"


def test_cost_of_tracking_a_sweep(tmp_path: Path) -> None:
    measured: dict[str, list[dict[str, float]]] = {variant: [] for variant in VARIANTS}
    for repeat in range(REPEATS):
        for variant in VARIANTS:
            measured[variant].append(run(variant, tmp_path / f"{variant}-{repeat}"))
    print(f"\n4 PPO trials x {ITERATIONS} iterations on GOOGL, two at once, SQLite, {REPEATS} repeats, interleaved")
    print(f"{'':12}{'CPU s: median (range)':>28}{'wall s: median (range)':>28}{'CPU ratio':>11}{'wall ratio':>12}")
    base = measured["untracked"]
    for variant in VARIANTS:
        cpu = [item["cpu_s"] for item in measured[variant]]
        wall = [item["wall_s"] for item in measured[variant]]
        cpu_ratio = statistics.median(cpu) / statistics.median(item["cpu_s"] for item in base)
        wall_ratio = statistics.median(wall) / statistics.median(item["wall_s"] for item in base)
        print(f"{variant:12}{spread(cpu):>28}{spread(wall):>28}{cpu_ratio:11.3f}{wall_ratio:12.3f}")
    ours = measured["ours"]
    start = statistics.median(item["courier_start_cpu_s"] for item in ours)
    total = statistics.median(item["courier_cpu_s"] for item in ours)
    print(f"the courier's own CPU: {start:.1f} s to start (imports, new store), {total - start:.1f} s to deliver")
    without_start = statistics.median(item["cpu_s"] - item["courier_start_cpu_s"] for item in ours)
    ratio = without_start / statistics.median(item["cpu_s"] for item in base)
    print(f"CPU ratio of ours without the courier's start: {ratio:.3f}")
    hooks = statistics.median(item["hooks_cpu_s"] for item in ours)
    share = statistics.median((item["hooks_cpu_s"] + item["courier_cpu_s"]) / item["cpu_s"] for item in ours)
    print(f"hooks {hooks:.2f} s + courier {total:.2f} s of CPU are {share:.2%} of the sweep's (promised <= 2 %)")
    afterwards = statistics.median(item["afterwards_cpu_s"] for item in ours)
    print(f"pictures of the 4 trials, drawn once the sweep had ended: {afterwards:.1f} s of CPU")
