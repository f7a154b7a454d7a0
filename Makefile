# Two commands do everything, set-up included: `make run` and `make test`. `make` lists all.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	"$$p" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)
BIN := .venv/bin
TEST_WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 3)

# PyTorch without CUDA, at the pinned versions; uv knows where its wheels are.
TORCH_CPU ?= --torch-backend cpu $(shell sed -nE 's/^(torch(vision)?==[^ ]+).*/\1/p' envs/requirements.txt)
GPU_PINS := torch|torchvision|triton|cuda-[a-z]+|nvidia-[a-z0-9-]+

.PHONY: help run setup cpu ui test test-avx2 pretrained hdf5 lint clean

help: ## this list; `make` alone shows it, too
	@grep -hE '^[a-z][a-z0-9 -]*:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z0-9-]+).*## /\1\t/' | \
		while IFS="$$(printf '\t')" read -r name what; do printf '  make %-12s %s\n' "$$name" "$$what"; done
	@echo "More commands, after set-up: .venv/bin/counterpoise --help"

run: .venv/ready ## the study of params.yaml, from raw media to results/
	$(BIN)/snakemake --cores all
	@cat results/studies/params/tables/accuracy.md
	@echo "The whole report: results/studies/params/report.html"

setup: .venv/ready ## the environment in .venv alone, as the first step of `make run` does

ui: .venv/ready ## the runs in MLflow's UI, on this machine alone; PORT=5001: at another port
	$(BIN)/python -m pipeline_src ui $(if $(PORT),--port $(PORT))

test: .venv/ready lint ## every check there is, on every core (and three more, as some wait); TEST_WORKERS=0: one after the other
	$(BIN)/python -m pytest -n $(TEST_WORKERS)

test-avx2: .venv/ready ## networks and training on the instruction set of older processors, less than a minute
	ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 MKL_CBWR=AVX2 $(BIN)/python -m pytest -q \
		tests/models tests/training/test_loop.py

pretrained: .venv/ready ## encoders of timm and Hugging Face transformers: install them and test them
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r envs/pretrained.txt
	COUNTERPOISE_PRETRAINED=1 $(BIN)/python -m pytest -q tests/models/test_pretrained.py

hdf5: .venv/ready ## published features of AVE: install their reader and test it
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r envs/hdf5.txt
	$(BIN)/python -m pytest -q tests/datasets/test_ave.py

lint: .venv/ready ## formatting, types, the workflow's rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

# Pinned packages with hashes; made anew when the pins change.
.venv/ready: envs/requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: expected Python 3.11 or later with venv, found $$(python3 --version 2>&1 || echo none);" \
		"install it, or name it: make run PYTHON=/path/to/python3" >&2; exit 2; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --use-pep517 --require-hashes -r envs/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

cluster-up cluster-down cluster-status: cluster-%: ## cluster-down, cluster-status: a Slurm of two nodes on this host, to try --profile slurm with
	slurm/toy/cluster $*

cpu: ## set-up without the packages of GPUs, a third of the size; needs uv (pip install uv)
	@command -v uv >/dev/null || { echo "error: expected uv, but got none; pip install uv" >&2; exit 2; }
	uv venv --quiet --clear --python $(PYTHON) .venv
	awk '/^[a-z]/ { gpu = /^($(GPU_PINS))==/ } !gpu' envs/requirements.txt >.venv/cpu.txt
	VIRTUAL_ENV=.venv uv pip install --quiet --require-hashes --no-deps -r .venv/cpu.txt
	VIRTUAL_ENV=.venv uv pip install --quiet --no-deps $(TORCH_CPU)
	VIRTUAL_ENV=.venv uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch .venv/ready

clean: ## forget the environment; data/ and results/ stay (see `prune`)
	rm -rf .venv
