# Two commands matter: `make demo` and `make test`. Everything lives in .venv; nothing else is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEMO := $(VENV)/.demo
# Byte code is written when a module is first imported: of most that is installed, nothing ever is. Where none may be
# written, every courier and every worker would compile Ray, torch and MLflow anew.
unexport PYTHONDONTWRITEBYTECODE
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt

.PHONY: demo test check bench test-browser test-faults test-cluster test-packages test-scenarios clean

demo: $(DEMO)  ## trains a small sweep on real market data, compares it, writes a report
	$(BIN)/drl-track train configs/demo.yaml --report demo-report

test: check  ## everything a change must pass
	$(BIN)/pytest -m "not cluster and not bench and not faults and not browser and not scenarios"

check: $(INSTALLED)  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(INSTALLED)  ## prints measurements, each a ratio within one run
	$(BIN)/pytest -m bench -s tests/benchmarks

test-browser: $(INSTALLED)  ## the report in headless Chromium (Debian: chromium chromium-driver)
	$(BIN)/pytest -m browser tests/analysis

test-faults: $(INSTALLED)  ## slow: real processes, killed, starved and cut off; CHAOS_KILLS=50 for the long form
	$(BIN)/pytest -m faults

test-cluster: $(INSTALLED)  ## slow: Ray heads and jobs of their own
	$(BIN)/pytest -m cluster

test-scenarios: $(INSTALLED)  ## slow: whole flows: configs/ trained by their command, tuning, promotion
	$(BIN)/pytest -m scenarios

OTHERS := $(VENV)/other-packages

test-packages: $(INSTALLED)  ## presets and callbacks against packages whose pins would hurt ours, installed beside them
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --no-deps --target $(OTHERS) \
		gym-trading-env==0.3.5 finrl==0.3.7 stable-baselines3
	DRL_OTHER_PACKAGES=$(abspath $(OTHERS)) $(BIN)/pytest tests/capture/test_presets.py \
		tests/training/test_experiment_service.py::test_stable_baselines3_itself_is_tracked_while_it_trains

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(DEMO): pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e ".[demo]"
	touch $(DEMO)

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e ".[dev]"
	touch $(INSTALLED) $(DEMO)

clean:
	rm -rf $(VENV) demo-report
