# `make demo` and `make test` set up what they need in .venv first.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

OUT := gen
PROTO_CACHE := .cache/proto
PROTOC := $(BIN)/python -m grpc_tools.protoc -Iproto -I$(PROTO_CACHE)
PROTOS := $(wildcard proto/minion/v1/*.proto)
SERVICES := $(wildcard proto/minion/v1/*_service.proto)

.PHONY: demo test check lint types layers protos gen wheel clean

# The main job, on real input, in a temporary directory.
demo: .venv/runtime
	$(BIN)/minion demo

test: .venv/dev
	$(BIN)/python -m pytest

# Everything that CI checks besides the tests.
check: lint types layers protos

lint: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/dev
	$(BIN)/mypy

layers: .venv/dev
	$(BIN)/lint-imports

# The contract is clean, and gen/ is what it generates.
protos: .venv/dev $(PROTO_CACHE)
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	rm -rf .cache/gen && mkdir -p .cache/gen/minion/v1
	$(MAKE) --no-print-directory gen OUT=.cache/gen
	diff -r -x __pycache__ -x py.typed gen .cache/gen

gen: .venv/dev $(PROTO_CACHE)
	PATH="$(abspath $(BIN)):$$PATH" $(PROTOC) --python_out=$(OUT) --mypy_out=quiet:$(OUT) $(PROTOS)
	PATH="$(abspath $(BIN)):$$PATH" $(PROTOC) --grpc_python_out=$(OUT) --mypy_grpc_out=quiet:$(OUT) $(SERVICES)
	$(PROTOC) --include_imports --include_source_info --descriptor_set_out=$(OUT)/minion/v1/minion.binpb \
	  $(PROTOS) google/rpc/error_details.proto

# buf and protoc need the sources of the annotations, and transcoders those of the errors' details, which
# the package of their Python code brings.
$(PROTO_CACHE): .venv/dev Makefile
	mkdir -p $@/google/api $@/google/rpc
	packages=$$($(BIN)/python -c 'import google.api; print(google.api.__path__[0])')/.. && \
	cp $$packages/api/annotations.proto $$packages/api/http.proto $@/google/api/ && \
	cp $$packages/rpc/error_details.proto $@/google/rpc/
	touch $@

wheel: .venv/dev
	rm -rf dist && $(BIN)/hatchling build -t wheel

.venv/runtime: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed"; exit 1; }
	$(PYTHON) -m venv .venv
	$(INSTALL) --upgrade pip
	$(INSTALL) --editable '.[all]'
	touch $@

.venv/dev: .venv/runtime
	$(INSTALL) --group dev
	touch $@

clean:
	rm -rf .venv .cache dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
