"""The import table, executed: which room may import what. A new room needs a row here."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import drl_ray_tracking

ROOT = Path(drl_ray_tracking.__file__).parent
OURS = "drl_ray_tracking"

# Longest matching prefix wins: (our rooms it may import, third parties it may import).
TABLE: dict[str, tuple[set[str], set[str]]] = {
    "": ({"*"}, set()),  # the package's own __init__ names the public API, lazily
    "errors": (set(), set()),
    "home": (set(), set()),
    "names": (set(), set()),
    "fingerprint": ({"names"}, set()),
    "episodes": ({"episodes", "errors", "names"}, {"numpy"}),
    "capture": ({"capture", "episodes", "errors", "names"}, {"gymnasium", "numpy"}),
    "capture.actions": (set(), {"gymnasium", "numpy", "ray"}),
    "capture.callback": ({"capture", "episodes", "errors", "names"}, {"numpy", "ray"}),
    "capture.instrument": ({"capture", "episodes", "errors", "names"}, {"numpy", "ray"}),
    "capture.files": ({"errors", "names"}, {"pyarrow", "ray"}),
    "capture.series": ({"capture", "episodes", "errors", "names"}, {"numpy", "pyarrow"}),
    "trials": ({"trials", "errors", "names", "fingerprint"}, set()),
    "trials.place": ({"errors"}, {"pyarrow"}),
    "tracking": ({"tracking", "trials", "errors", "home", "names", "fingerprint"}, set()),
    "tracking.callback": ({"tracking", "trials", "errors", "names", "fingerprint"}, {"ray"}),
    "tracking.identity": ({"tracking", "trials", "errors", "names", "fingerprint"}, {"ray"}),
    "tracking.mlflow_models": ({"tracking", "errors", "names"}, {"mlflow"}),
    "tracking.mlflow_sink": ({"tracking", "errors", "names"}, {"mlflow"}),
    "tracking.node_sample": (set(), {"psutil"}),
    "tracking.system_metrics": ({"tracking", "errors", "names"}, {"ray"}),
    "tracking.earlier_runs": ({"tracking", "errors", "names"}, {"mlflow"}),
    "tracking.episode_pools": ({"tracking", "trials", "episodes", "names"}, set()),
    "tracking.histories": ({"tracking", "trials", "names"}, {"pyarrow"}),
    "tracking.storage": ({"tracking", "trials", "errors", "names"}, {"pyarrow"}),
    "tracking.tracked_run": ({"tracking", "trials", "episodes", "errors", "names", "fingerprint"}, set()),
    "tracking.trial_files": ({"tracking", "errors", "names"}, {"pyarrow"}),
    "analysis": ({"analysis", "trials", "errors", "home", "names", "fingerprint"},
                 {"numpy", "pandas", "rich", "scipy"}),
    "analysis.artifacts": (set(), {"mlflow"}),
    "analysis.point_files": ({"analysis", "trials"}, {"numpy", "pyarrow"}),
    "analysis.budget": ({"errors", "names"}, {"mlflow"}),
    "analysis.runs": ({"analysis", "errors", "names"}, {"mlflow", "numpy", "pandas"}),
    "analysis.publish": ({"analysis", "errors", "names"}, {"mlflow", "numpy", "pandas"}),
    "analysis.page": ({"analysis", "errors", "names"}, {"jinja2", "numpy", "pandas", "plotly"}),
    "analysis.canvas": ({"analysis"}, {"matplotlib", "numpy"}),
    **{
        f"analysis.{picture}": ({"analysis", "errors", "names"}, {"matplotlib", "numpy", "pandas"})
        for picture in ("action_mix", "plots", "return_pictures", "trade_chart", "trial_curves")
    },
    "analysis.bars": ({"analysis", "episodes", "errors"}, {"numpy"}),
    "analysis.symbol_table": ({"analysis", "episodes"}, {"numpy", "pandas"}),
    "analysis.trace": ({"analysis", "episodes", "errors"}, {"numpy", "pandas"}),
    "analysis.pooled": ({"analysis", "episodes", "errors"}, {"numpy", "pandas"}),
    "analysis.pooled_picture": ({"analysis", "errors"}, {"matplotlib", "numpy", "pandas"}),
    "analysis.trade_chart": ({"analysis", "episodes", "errors"}, {"matplotlib", "numpy"}),
    "analysis.trial_pictures": ({"analysis", "errors", "names"}, {"numpy", "pandas", "pyarrow"}),
    "markets": ({"markets", "errors", "names"}, {"gymnasium", "numpy", "pandas"}),
    "markets.shared": ({"markets", "errors"}, {"ray"}),
    "models": ({"models", "capture", "tracking", "analysis", "episodes", "errors", "names"},
               {"gymnasium", "mlflow", "numpy", "ray", "torch"}),
    "training": ({"training", "markets", "models", "capture", "tracking", "trials", "analysis", "episodes",
                  "errors", "names", "fingerprint"},
                 {"numpy", "pandas", "pydantic", "ray", "rich", "yaml"}),
    "training.continuation": ({"training", "models", "tracking", "analysis", "errors", "names"}, {"mlflow", "pyarrow"}),
    "training.evaluation_series": ({"training", "capture", "tracking", "episodes", "names"}, {"pyarrow"}),
    "training.backtests": ({"training", "markets", "models", "errors"}, set()),
    "training.probe": ({"errors"}, {"pyarrow", "ray"}),
    "training.trained": ({"training", "episodes", "names", "trials"}, {"numpy", "pyarrow"}),
    # What trained agents do on their test bars: looks at them are counted in the store.
    "training.out_of_sample": ({"training", "models", "analysis", "episodes", "errors", "names"}, {"mlflow", "pandas"}),
    "training.ensemble_runs": (
        {"training", "markets", "models", "analysis", "errors", "fingerprint", "names"}, {"mlflow"}
    ),
    "promotion": ({"promotion", "training", "markets", "models", "tracking", "trials", "analysis", "errors", "names"},
                  {"mlflow", "pyarrow", "pydantic", "ray", "yaml"}),
    "comparing": ({"analysis", "errors", "names"}, {"rich"}),
    "cli": ({"*"}, {"rich", "typer"}),
}  # fmt: skip
STATISTICS = {
    "bootstrap", "effects", "inputs", "intervals", "multiplicity", "overfitting", "selection", "sensitivity",
    "stability", "superior", "variance",
}  # fmt: skip
TABLE.update({f"analysis.{name}": ({"analysis", "errors"}, {"numpy", "scipy"}) for name in STATISTICS})


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found.append((".".join(part for part in parts if part != "__init__"), path))
    return found


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            assert node.module is not None
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names if node.module == OURS)
    return found


def row(module: str) -> tuple[set[str], set[str]]:
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        key = ".".join(parts[:length])
        if key in TABLE:
            return TABLE[key]
    raise AssertionError(f"{module} has no row in the import table")


@pytest.mark.parametrize(("module", "path"), modules(), ids=[name or "__init__" for name, _ in modules()])
def test_imports_point_only_downwards(module: str, path: Path) -> None:
    rooms, third_parties = row(module)
    for imported in imports_of(path):
        top, _, rest = imported.partition(".")
        if top == OURS:
            room = rest.split(".")[0]
            assert not room or room in rooms or "*" in rooms, f"{module} may not import {imported}"
        elif top not in sys.stdlib_module_names:
            assert top in third_parties, f"{module} may not import {imported}"


def test_the_table_has_no_row_for_what_is_gone() -> None:
    there = {name for name, _ in modules()}
    gone = [key for key in TABLE if key not in there and not any(name.startswith(f"{key}.") for name in there)]
    assert not gone


def loaded_by(code: str) -> set[str]:
    """Returns the top-level and second-level names of all modules a fresh interpreter has after some code."""
    program = f"{code}\nimport sys\nprint(' '.join('.'.join(name.split('.')[:2]) for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


HEAVY = {"mlflow", "pandas", "pyarrow", "ray", "scipy", "torch", "matplotlib", "numpy"}


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not loaded_by("import drl_ray_tracking") & HEAVY


HELP = """
import sys
sys.argv = ["drl-track", "--help"]
from drl_ray_tracking.cli import main
try:
    main()
except SystemExit:
    pass
"""
PICKLE = """
import functools, pickle, sys
from drl_ray_tracking.capture.callback import CaptureSettings, EpisodeCapture
sys.stdout.write(pickle.dumps(functools.partial(EpisodeCapture, CaptureSettings())).hex())
"""


def test_help_loads_nothing_heavy() -> None:
    loaded = loaded_by(HELP)
    assert "typer" in loaded
    assert not loaded & HEAVY


def test_a_worker_loads_no_tracking_analysis_training_or_mlflow() -> None:
    done = subprocess.run([sys.executable, "-c", PICKLE], capture_output=True, text=True, check=True)
    pickled = done.stdout
    loaded = loaded_by(f"import pickle; pickle.loads(bytes.fromhex({pickled!r}))()")
    assert "drl_ray_tracking.capture" in loaded
    for forbidden in ("mlflow", *(f"{OURS}.{room}" for room in ("tracking", "analysis", "training", "cli"))):
        assert forbidden not in loaded


def test_every_public_name_is_there() -> None:
    for name in drl_ray_tracking.__all__:
        assert getattr(drl_ray_tracking, name) is not None
    with pytest.raises(AttributeError, match="public are"):
        _ = drl_ray_tracking.nothing_of_that_name  # type: ignore[attr-defined]
