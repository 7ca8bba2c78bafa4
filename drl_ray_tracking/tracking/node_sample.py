"""What one machine is busy with, now: CPU, memory, disk, GPUs. Runs in a light actor on every node.

In a container, memory is the container's own; CPU and disk are the machine's.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

_CGROUP: Final = Path("/sys/fs/cgroup")
_GPU_QUERY: Final = ("--query-gpu=index,utilization.gpu,memory.used,memory.total", "--format=csv,noheader,nounits")
_GPU_TIMEOUT_S: Final = 5.0
_GB: Final = 1e9


class NodeSampler:
    """Takes samples; the CPU's share is that since the sample before."""

    def __init__(self, disk: str = "/") -> None:
        """Looks at the machine for the first time; `disk` is a path on the disk that may fill up."""
        import psutil

        self._disk = disk
        self._gpu = shutil.which("nvidia-smi")
        psutil.cpu_percent(None)  # its first answer means nothing

    def sample(self) -> dict[str, float]:
        """Returns percentages (0 to 100) and used memory in GB (1e9 bytes), by short names."""
        import psutil

        used, total = memory_bytes()
        values = {
            "cpu_percent": psutil.cpu_percent(None),
            "memory_percent": 100.0 * used / total,
            "memory_used_gb": used / _GB,
            "disk_percent": psutil.disk_usage(self._disk).percent,
        }
        return values | (self._gpus() if self._gpu else {})

    def _gpus(self) -> dict[str, float]:
        assert self._gpu is not None
        try:
            done = subprocess.run(
                [self._gpu, *_GPU_QUERY], capture_output=True, text=True, timeout=_GPU_TIMEOUT_S, check=True
            )
        except (OSError, subprocess.SubprocessError):  # no driver loaded, or it hangs: the rest is worth having
            return {}
        return parse_gpus(done.stdout)


def parse_gpus(text: str) -> dict[str, float]:
    """Reads the answer of `nvidia-smi`, a line a GPU; what a GPU does not tell (`[N/A]`) is left out."""
    values = {}
    for line in text.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) != 4:
            continue
        index, busy, used, total = parts
        if _is_number(busy):
            values[f"gpu{index}_percent"] = float(busy)
        if _is_number(used) and _is_number(total) and float(total) > 0:
            values[f"gpu{index}_memory_percent"] = 100.0 * float(used) / float(total)
    return values


def memory_bytes(cgroup: Path = _CGROUP) -> tuple[float, float]:
    """Returns used and total memory, of the container where it has a limit, else of the machine."""
    import psutil

    machine = psutil.virtual_memory()
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        if limit.isdecimal() and 0 < int(limit) < machine.total:
            used = int((cgroup / "memory.current").read_text())
            # The page cache that the kernel takes back when asked counts as free, as it does for the machine.
            for line in (cgroup / "memory.stat").read_text().splitlines():
                if line.startswith("inactive_file "):
                    used -= int(line.split()[1])
            return float(max(used, 0)), float(limit)
    except (OSError, ValueError):
        pass
    return float(machine.total - machine.available), float(machine.total)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
