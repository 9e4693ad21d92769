# `make demo` and `make test` set up what they need in .venv first.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

PROCESSORS = $$(getconf _NPROCESSORS_ONLN)

OUT := gen
CLIENT := client/minion_client
PROTO_CACHE := .cache/proto
PROTOC := $(BIN)/python -m grpc_tools.protoc -Iproto -I$(PROTO_CACHE)
PROTOS := $(wildcard proto/minion/v1/*.proto)
SERVICES := $(wildcard proto/minion/v1/*_service.proto)

.PHONY: demo test unit check lint types layers protos breaking gen wheel clean

# The main job, on real input, in a temporary directory.
demo: $(VENV)/runtime
	$(BIN)/minion demo

# Tests wait for much: two processes of them per processor, each with folders, ports and a PostgreSQL server of its own.
test: $(VENV)/dev
	$(BIN)/python -m pytest -n $$(( 2 * $(PROCESSORS) )) --dist worksteal

# A quarter of a minute for the inner loop: tests that start no program and listen at no port.
unit: $(VENV)/dev
	$(BIN)/python -m pytest -n $(PROCESSORS) --dist worksteal -m unit --hypothesis-profile quick

# Everything that CI checks besides the tests.
check: lint types layers protos breaking

lint: $(VENV)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/dev
	$(BIN)/mypy

layers: $(VENV)/dev
	$(BIN)/lint-imports

# The contract is clean, and gen/ and the synchronous client are what is generated.
protos: $(VENV)/dev $(PROTO_CACHE)
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	rm -rf .cache/gen .cache/client && mkdir -p .cache/gen/minion/v1
	$(MAKE) --no-print-directory gen OUT=.cache/gen CLIENT=.cache/client
	diff -r -x __pycache__ -x py.typed gen .cache/gen
	diff $(CLIENT)/client.py .cache/client/client.py
	diff -r -x __pycache__ $(CLIENT)/_sync .cache/client/_sync

# Programs that were built on the contract of the last commit go on working: of the one before, if proto/
# has not been touched since. A clone may have neither.
breaking: $(VENV)/dev $(PROTO_CACHE)
	@base=HEAD; git diff --quiet HEAD -- proto 2>/dev/null && base=HEAD^; \
	rm -rf .cache/before && mkdir -p .cache/before/.cache && cp -r $(PROTO_CACHE) .cache/before/.cache/ && \
	if git archive --output .cache/before.tar $$base proto buf.yaml 2>/dev/null; then \
	  tar -xf .cache/before.tar -C .cache/before && echo "buf breaking --against $$base" && \
	  $(BIN)/buf breaking --against .cache/before; \
	else echo "buf breaking: there is no earlier commit here to compare with"; fi

gen: $(VENV)/dev $(PROTO_CACHE)
	PATH="$(abspath $(BIN)):$$PATH" $(PROTOC) --python_out=$(OUT) --mypy_out=quiet:$(OUT) $(PROTOS)
	PATH="$(abspath $(BIN)):$$PATH" $(PROTOC) --grpc_python_out=$(OUT) --mypy_grpc_out=quiet:$(OUT) $(SERVICES)
	$(PROTOC) --include_imports --include_source_info --descriptor_set_out=$(OUT)/minion/v1/minion.binpb \
	  $(PROTOS) google/rpc/error_details.proto
	$(BIN)/python client/unasync_client.py $(CLIENT)

# buf and protoc need the sources of the annotations, and transcoders those of the errors' details, which
# the package of their Python code brings.
$(PROTO_CACHE): $(VENV)/dev Makefile
	mkdir -p $@/google/api $@/google/rpc
	packages=$$($(BIN)/python -c 'import google.api; print(google.api.__path__[0])')/.. && \
	cp $$packages/api/annotations.proto $$packages/api/http.proto $@/google/api/ && \
	cp $$packages/rpc/error_details.proto $@/google/rpc/
	touch $@

wheel: $(VENV)/dev
	rm -rf dist && $(BIN)/hatchling build -t wheel

$(VENV)/runtime: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade pip
	$(INSTALL) --editable '.[all]'
	touch $@

$(VENV)/dev: $(VENV)/runtime
	$(INSTALL) --group dev
	touch $@

clean:
	rm -rf .venv .cache dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
