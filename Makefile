# The main commands are `make serve` and `make test`. Each installs what it needs on its first run.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help serve weights test coverage lint format bench fuzz openapi generators tables lock audit sbom release image clean

help:
	@echo "make serve          install, download a model if there is none, serve on port $(or $(PORT),$(RESNET_SERVICE_PORT),8080)"
	@echo "make serve CALIBRATION=DIR    the same in INT8, calibrated with the images in DIR"
	@echo "make test           install what tests need, lint, run the tests"
	@echo "make test SLOW=1    the same, with the slow tests"
	@echo "make coverage       show the lines and branches that the in-process tests miss"
	@echo "make lint           run ruff, mypy, codespell and import-linter"
	@echo "make format         format the code with ruff"
	@echo "make image          build the container image resnet-service, with the model that make serve serves"
	@echo "make image MODEL=checkpoints/pets-int8.onnx    the same with your own exported model"
	@echo "make bench          compare with other servers; see benchmarks/README.md"
	@echo "make openapi        write the OpenAPI document to docs/openapi.json"
	@echo "make generators     try that document with generators of clients and linters; needs npm"
	@echo "make tables         write the tables of settings, metrics and errors to docs/"
	@echo "make lock           pin the dependencies by hash; UPGRADE=1 takes the newest versions"
	@echo "make audit          look up known vulnerabilities of the pinned dependencies"
	@echo "make sbom           write a bill of materials of the serving dependencies to dist/"
	@echo "make release        write wheel, source archive, bill of materials and digests of this commit to dist/"
	@echo "make fuzz           fuzz each target for SECONDS=30"
	@echo "make clean          remove everything that these commands created, except models"

# Without PORT, the service itself reads RESNET_SERVICE_PORT, like RESNET_SERVICE_HOST and its other variables.
serve: weights
	@$(BIN)/resnet-service serve $(if $(PORT),--port $(PORT))

# Exit code 3: no source of weights could be reached. Other failures end make.
weights: $(VENV)/.serve $(if $(CALIBRATION),$(VENV)/.quantize)
	@$(BIN)/resnet-service pull --if-missing $(if $(CALIBRATION),--calibration $(CALIBRATION)) \
	    || { test $$? -eq 3 && echo "No ImageNet weights could be fetched: using the model in the repository."; }

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

generators: openapi
	@$(BIN)/python -m tools.generators

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
	@for target in decode checkpoint safetensors graph exported third_party; do $(BIN)/python -m fuzz $$target $(or $(SECONDS),30) || exit 1; done

# The label values are build arguments, since a Dockerfile cannot read files; the build verifies them.
ENGINE ?= $(shell for engine in docker podman buildah; do $$engine info >/dev/null 2>&1 && echo $$engine && break; done)
# Expanded after the weights are there.
IMAGE_MODEL = $(or $(MODEL),$(shell $(BIN)/python -c 'from resnet_service.models.discovery import choose_model; print(choose_model(None))'))
image: $(if $(MODEL),,weights)
	@test -n "$(ENGINE)" || { echo "Building an image needs docker, podman or buildah; none of them works here." >&2; exit 1; }
	$(ENGINE) build $(if $(filter docker,$(ENGINE)),,--format docker) --tag resnet-service $(OPTIONS) \
	    --build-arg MODEL=$(IMAGE_MODEL) \
	    --build-arg MODEL_VERSION=$(shell sha256sum $(IMAGE_MODEL) | cut -c1-12) \
	    --build-arg VERSION=$(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' src/resnet_service/__init__.py) \
	    --build-arg REVISION=$(shell git rev-parse HEAD 2>/dev/null || echo unknown) .
	@test $$(wc -c < $(IMAGE_MODEL)) -lt 40000000 || echo "$(IMAGE_MODEL) is in FP32; make image CALIBRATION=DIR builds it in INT8, a quarter of the size."

clean:
	rm -rf $(VENV) .venv-ray build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage

# Stamp files record what is installed; make renews one when its dependencies change.
$(VENV)/.venv:
	@echo "Creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.serve: $(VENV)/.venv pyproject.toml
	@echo "Installing resnet-service"
	@$(PIP) --editable '.[pull]'
	@touch $@

$(VENV)/.quantize: $(VENV)/.serve
	@echo "Installing what quantizes models"
	@$(PIP) --editable '.[pull,quantize]'
	@touch $@

$(VENV)/.test: $(VENV)/.venv pyproject.toml tools/install_torch.py tests/images.txt
	@$(BIN)/python tools/install_torch.py
	@echo "Installing what tests need"
	@$(PIP) --editable '.[pull,quantize,torch,plot,otel,clients,batch,heic,dev]'
	@$(PIP) --no-deps --require-hashes --requirement tests/images.txt
	@touch $(VENV)/.serve $(VENV)/.quantize $@
