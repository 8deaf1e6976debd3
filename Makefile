# A clean clone needs Python 3.11 or newer and make. `make demo` and `make test` set up .venv the first time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Images of Python for containers set this; the tests start hundreds of programs, and each would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo docs examples integrations robustness test check lint format clean

help:
	@echo "make demo    fit, score and evaluate on synthetic images; opens nothing, writes to demo/"
	@echo "make test    run the tests"
	@echo "make integrations  run the tests with other packages: anomalib, Ray, PyOD, scikit-learn, object storage"
	@echo "make check   lint, and the tests of the package that are quick: while you work"
	@echo "make docs    build the documentation into build/site/, and run its examples and notebooks"
	@echo "make examples  run the examples in a browser and in C++; fetches onnxruntime-web and C headers into build/"
	@echo "make robustness  the benchmark of robustness in short"
	@echo "make lint    ruff, mypy and the layers"
	@echo "make format  let ruff format the code"
	@echo "make clean   remove .venv and what the demo wrote"

# One environment that grows: the demo needs the extra "fit", tests and lint need "dev". A stamp is written last, so a
# set-up that was interrupted starts again.
$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("energyad needs Python 3.11 or newer: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.fit: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[fit]'
	touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $(VENV)/.fit $@

demo: $(VENV)/.fit
	$(BIN)/energyad demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist worksteal --ignore tests/docs --ignore tests/integrations

integrations: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist worksteal tests/integrations

check: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal --ignore tests/docs --ignore tests/integrations --ignore tests/benchmarks -m "not slow"

ORT_WEB := 1.30.0
ORT_WEB_URL := https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-$(ORT_WEB).tgz
ORT_WEB_FILES := ort.wasm.min.js ort-wasm-simd-threaded.mjs ort-wasm-simd-threaded.wasm

build/onnxruntime-web-$(ORT_WEB):
	mkdir -p $@.part
	curl --fail --silent --show-error --retry 3 $(ORT_WEB_URL) | tar xz -C $@.part --strip-components 2 $(addprefix package/dist/,$(ORT_WEB_FILES))
	mv $@.part $@

build/onnxruntime-headers:
	examples/cpp/headers.sh $@

examples: $(VENV)/.dev build/onnxruntime-web-$(ORT_WEB) build/onnxruntime-headers
	ENERGYAD_ORT_WEB=build/onnxruntime-web-$(ORT_WEB) ENERGYAD_ORT_HEADERS=build/onnxruntime-headers \
		$(BIN)/python -m pytest tests/examples/test_browser.py tests/examples/test_cpp.py

robustness: $(VENV)/.dev
	$(BIN)/python -m benchmarks.robustness --quick

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	$(BIN)/python -m pytest -n 2 --dist worksteal tests/docs

lint: $(VENV)/.dev
	$(BIN)/lint-imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) demo build/site
