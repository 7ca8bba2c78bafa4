# Two commands matter: `make demo` and `make test`. Everything lives in .venv; nothing else is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test check bench test-faults test-cluster test-packages clean

demo: $(INSTALLED)  ## trains a small sweep on real market data, compares it, writes a report
	$(BIN)/drl-track train configs/demo.yaml --report demo-report

test: check  ## everything a change must pass
	$(BIN)/pytest -m "not cluster and not bench and not faults"

check: $(INSTALLED)  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(INSTALLED)  ## prints measurements, each a ratio within one run
	$(BIN)/pytest -m bench -s tests/benchmarks

test-faults: $(INSTALLED)  ## slow: real processes, killed, starved and cut off; CHAOS_KILLS=50 for the long form
	$(BIN)/pytest -m faults

test-cluster: $(INSTALLED)  ## slow: Ray heads and jobs of their own
	$(BIN)/pytest -m cluster

OTHERS := $(VENV)/other-packages

test-packages: $(INSTALLED)  ## the presets against packages whose pins would hurt ours, installed beside them
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --no-deps --target $(OTHERS) \
		gym-trading-env==0.3.5 finrl==0.3.7 stable-baselines3
	DRL_OTHER_PACKAGES=$(abspath $(OTHERS)) $(BIN)/pytest tests/capture/test_presets.py

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(INSTALLED)

clean:
	rm -rf $(VENV) demo-report
