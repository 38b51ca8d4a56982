# Everything a contributor types. `make` alone explains itself.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
READY   = $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test quick lint docs bench bench-gpu frontier search rewards faults clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	@touch $(READY)

demo: $(READY) ## set up, train ladder, branch and QLoRA on the embedded task, evaluate them and the backbone
	$(BIN)/python scripts/demo.py

test: $(READY) ## run all tests (about 20 minutes on two cores)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# What starts no process and trains nothing for long; what does all the same is marked slow.
QUICK = tests/test_architecture.py tests/test_docs.py tests/config/test_schema.py tests/config/test_options.py tests/run \
	tests/data tests/nn/test_connections.py tests/nn/test_loss.py tests/evaluate/answers tests/evaluate/test_statistics.py \
	tests/evaluate/test_summary.py tests/train/test_loop.py tests/trunk/test_contract.py

quick: $(READY) ## the tests to run while writing (under a minute)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" $(QUICK)

lint: $(READY) ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY) ## build the documentation site into outputs/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

bench: $(READY) ## step time and memory of every method beside QLoRA with checkpointing (half an hour); bench.json
	$(BIN)/python scripts/bench.py

bench-gpu: $(READY) ## the same at 1.5B and 7B on a GPU, with random weights, under memory caps; bench-gpu.json
	$(BIN)/python scripts/bench.py --gpu
	$(BIN)/python scripts/bench.py --gpu --streamed

frontier: $(READY) ## loss against time and memory, every method at its best rate (embedded task, half an hour)
	OMP_NUM_THREADS=1 $(BIN)/python scripts/frontier.py

search: $(READY) ## every method's settings, with the same number of trials and the same processor time (hours)
	OMP_NUM_THREADS=1 $(BIN)/python scripts/search.py --timed 60

rewards: $(READY) ## learn from preferences and rewards on the embedded task, before and after (about 40 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python scripts/rewards.py

faults: $(READY) ## kill, fill, corrupt, starve: what is lost? (about half an hour); writes outputs/faults/faults.json
	$(BIN)/python scripts/faults.py

clean: ## remove the virtual environment and build leftovers
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
