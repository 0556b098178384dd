# `make` alone lists the targets.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.installed ## train, validate and test one model on drawn pictures, with no network
	$(BIN)/gel-fit fit --config configs/resnet18_multi_sgd_cpu.yaml --config configs/offline.yaml

test: $(VENV)/.installed ## run the tests
	$(BIN)/python -m pytest -n 2

lint: $(VENV)/.installed ## check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(VENV)/.installed ## measure the speed figures of the README, in about ten minutes
	$(BIN)/python benchmarks/run.py

clean: ## remove the virtual environment
	rm -rf $(VENV)

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@
