# Two commands do everything: `make serve` and `make test`. Both set up what they need the first time.

PYTHON ?= python3
PORT ?= 8080
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help serve test coverage lint format bench fuzz openapi tables lock audit sbom release image clean

help:
	@echo "make serve          install, fetch a model if there is none, export it, serve on port $(PORT)"
	@echo "make serve CALIBRATION=DIR    the same in INT8, calibrated with the images in DIR"
	@echo "make test           install what tests need, lint, run the tests"
	@echo "make test SLOW=1    the same with the long proofs"
	@echo "make coverage       which lines and branches the in-process tests reach"
	@echo "make lint           ruff, mypy, codespell and the layers of packages (import-linter)"
	@echo "make format         let ruff format the code"
	@echo "make image          build the container image resnet-service, with the model in the repository"
	@echo "make image MODEL=checkpoints/pets-int8.onnx    the same with your own exported model"
	@echo "make bench          compare with other servers; see benchmarks/README.md"
	@echo "make openapi        write what the service says of its operations to docs/openapi.json"
	@echo "make tables         write the tables of settings, metrics and errors into docs/"
	@echo "make lock           pin by hash what serving and development need; UPGRADE=1 takes the newest"
	@echo "make audit          look up known vulnerabilities of what is pinned"
	@echo "make sbom           write the bill of materials of what serves into dist/"
	@echo "make release        wheel, source archive, bill of materials and digests of this commit into dist/"
	@echo "make fuzz           look for inputs that crash; SECONDS=30 for each target"
	@echo "make clean          remove what the above created, except models"

serve: $(VENV)/.serve
	@$(BIN)/resnet-service pull --if-missing $(if $(CALIBRATION),--calibration $(CALIBRATION)) || echo "Without ImageNet weights, the model in the repository is served."
	@$(BIN)/resnet-service serve --port $(PORT)

test: lint
	@$(BIN)/python -m pytest $(if $(SLOW),,-m "not slow") $(ARGS)

# A tracer slows what it measures, so tests with time limits may fail here; the report comes all the same.
coverage: $(VENV)/.test
	@$(BIN)/python -m coverage run -m pytest -q -m "not slow" -o timeout=600 $(ARGS) || echo "Some tests failed under the tracer; make test judges them."
	@$(BIN)/python -m coverage report

lint: $(VENV)/.test
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy
	@$(BIN)/codespell
	@$(BIN)/lint-imports --no-logo --no-cache > $(VENV)/imports.log || { cat $(VENV)/imports.log; exit 1; }

format: $(VENV)/.test
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

bench: $(VENV)/.test
	@$(BIN)/python -m benchmarks $(ARGS)

openapi: $(VENV)/.test
	@$(BIN)/python -m tools.openapi

tables: $(VENV)/.test
	@$(BIN)/python -m tools.tables

lock: $(VENV)/.test
	@$(BIN)/python tools/lock.py $(if $(UPGRADE),--upgrade)

audit: $(VENV)/.test
	@$(BIN)/python tools/audit.py

sbom: $(VENV)/.test
	@$(BIN)/python tools/sbom.py

release: $(VENV)/.test
	@$(BIN)/python -m tools.release

fuzz: $(VENV)/.test
	@for target in decode checkpoint exported; do $(BIN)/python -m fuzz $$target $(or $(SECONDS),30) || exit 1; done

# The labels are arguments, since a Dockerfile cannot look into files; the build checks that they are true.
ENGINE ?= $(shell for engine in docker podman buildah; do $$engine info >/dev/null 2>&1 && echo $$engine && break; done)
MODEL ?= checkpoints/resnet18-fashion-mnist-int8.onnx
image:
	@test -n "$(ENGINE)" || { echo "No docker, podman or buildah works here." >&2; exit 1; }
	$(ENGINE) build $(if $(filter docker,$(ENGINE)),,--format docker) --tag resnet-service $(OPTIONS) \
	    --build-arg MODEL=$(MODEL) \
	    --build-arg MODEL_VERSION=$(shell sha256sum $(MODEL) | cut -c1-12) \
	    --build-arg VERSION=$(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' src/resnet_service/__init__.py) \
	    --build-arg REVISION=$(shell git rev-parse HEAD 2>/dev/null || echo unknown) .

clean:
	rm -rf $(VENV) .venv-ray build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage

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

$(VENV)/.test: $(VENV)/.serve tests/images.txt
	@echo "Installing what tests need"
	@$(PIP) --editable '.[torch,plot,otel,clients,batch,dev]'
	@$(PIP) --no-deps --require-hashes --requirement tests/images.txt
	@touch $@
