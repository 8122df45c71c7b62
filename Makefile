# Two commands do everything: `make serve` and `make test`. Both set up what they need the first time.

PYTHON ?= python3
PORT ?= 8080
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help serve test lint format bench clean

help:
	@echo "make serve          install, fetch a model if there is none, pack it, serve on port $(PORT)"
	@echo "make serve CALIBRATION=DIR    the same in INT8, calibrated with the pictures in DIR"
	@echo "make test           install what tests need, lint, run the tests"
	@echo "make test SLOW=1    the same with the long proofs"
	@echo "make lint           ruff and mypy"
	@echo "make format         let ruff format the code"
	@echo "make bench          compare with other servers; see benchmarks/README.md"
	@echo "make clean          remove what the above created, except models"

serve: $(VENV)/.serve
	@$(BIN)/resnet-service pull --if-missing $(if $(CALIBRATION),--calibration $(CALIBRATION)) || echo "Without ImageNet weights, the model in the repository is served."
	@$(BIN)/resnet-service serve --port $(PORT)

test: lint
	@$(BIN)/python -m pytest $(if $(SLOW),,-m "not slow") $(ARGS)

lint: $(VENV)/.test
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy

format: $(VENV)/.test
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

bench: $(VENV)/.test
	@$(BIN)/python -m benchmarks $(ARGS)

clean:
	rm -rf $(VENV) .venv-ray build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

# Stamps say what is installed; each is renewed when what it depends on changes.
$(VENV)/.venv:
	@echo "Creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.serve: $(VENV)/.venv pyproject.toml tools/install_torch.py
	@$(BIN)/python tools/install_torch.py
	@echo "Installing resnet-service"
	@$(PIP) --editable '.[torch]'
	@touch $@

$(VENV)/.test: $(VENV)/.serve tests/pictures.txt
	@echo "Installing what tests need"
	@$(PIP) --editable '.[torch,plot,batch,dev]'
	@$(PIP) --no-deps --require-hashes --requirement tests/pictures.txt
	@touch $@
