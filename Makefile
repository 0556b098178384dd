# `make` alone lists the targets.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo detector test test-xla test-oldest lint bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.installed ## train and test one model on drawn pictures, and find the gels among them, with no network
	$(BIN)/gel-fit fit --config configs/offline.yaml
	$(BIN)/gel-fit find data/drawn/test_images --page gels.html

# Folders of class folders that have some of the training pictures; those in none of them are downloaded.
LABS ?=
TRIAL := build/detector
detector: $(VENV)/.installed ## train the packaged detector anew; LABS=FOLDER names pictures that need no download
	rm -rf $(TRIAL)
	test -e data/drawn || $(BIN)/gel-fit data draw --to data/drawn
	test -e data/detector || $(BIN)/python -m gel_lightning.detector.pictures --to data/detector $(LABS)
	$(BIN)/gel-fit compare --config configs/detector.yaml --backbones efficientnet_lite0 --heads NormalizedLinearHead \
	  --optimizers Adam --data.groups gel_lightning/detector/pictures.csv --folds groups --trainer.default_root_dir $(TRIAL)
	$(BIN)/gel-fit fit --config configs/detector.yaml --trainer.default_root_dir $(TRIAL) --results_file $(TRIAL)/results.csv
	$(BIN)/gel-fit export --ckpt_path $(TRIAL)/lightning_logs/detector/version_0/checkpoints/last.ckpt --half \
	  --calibration $(TRIAL)/lightning_logs/comparison/version_0/*/predictions.csv --to gel_lightning/detector/gel.onnx

test: $(VENV)/.installed ## run the tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-xla: $(VENV)-xla/.installed ## run the tpu files with XLA on the processor, in a virtual environment of their own
	PJRT_DEVICE=CPU $(VENV)-xla/bin/python -m pytest -m xla $(XLA_TESTS)

test-oldest: $(VENV)-oldest/.installed ## run the tests with the oldest versions that are supported
	$(VENV)-oldest/bin/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.installed ## check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(VENV)/.installed ## measure the speed figures of the README, in about ten minutes; fails below what it claims
	$(BIN)/python benchmarks/run.py

clean: ## remove the virtual environment
	rm -rf $(VENV) $(VENV)-xla $(VENV)-oldest

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

# Without what a TPU itself needs: the extra [tpu] has that too. PIP_CONSTRAINT holds but for another torch.
$(VENV)-xla/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)-xla
	sed -E '/^torch(vision)?==/d' $${PIP_CONSTRAINT:-/dev/null} > $(VENV)-xla/constraints.txt
	PIP_CONSTRAINT=$(VENV)-xla/constraints.txt $(VENV)-xla/bin/python -m pip install --quiet \
	  --disable-pip-version-check --editable '.[dev]' 'torch==2.9.*' 'torchvision==0.24.*' 'torch_xla==2.9.*'
	touch $@

# What pyproject.toml says with >=, taken as ==.
OLDEST := import re, tomllib; \
  needs = tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]; \
  print(*(re.sub(r"(\[.*\])?>=([\w.]+).*", r"==\2", need) for need in needs), sep="\n")

$(VENV)-oldest/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)-oldest
	$(PYTHON) -c '$(OLDEST)' > $(VENV)-oldest/constraints.txt
	PIP_CONSTRAINT=$(VENV)-oldest/constraints.txt $(VENV)-oldest/bin/python -m pip install --quiet \
	  --disable-pip-version-check --editable '.[dev]'
	touch $@
