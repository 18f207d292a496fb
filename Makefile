# Paceline's commands: `make` alone lists them.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The versions this repository is tested with, torch for CPU among them. On a GPU machine:
#   make install CONSTRAINTS=
CONSTRAINTS ?= -c constraints-cpu.txt
INSTALLED := $(VENV)/.installed
# All is compiled to bytecode at installation but large packages that few processes import. Where
# Python writes no bytecode (PYTHONDONTWRITEBYTECODE), each process would compile what it imports: one
# of Ray needs 0.4 seconds of CPU time, or 0.7; one that serves 3.2 and 3.8; 10 seconds for a short job.
NOT_COMPILED := transformers|sympy|scipy|sklearn|moto|networkx|matplotlib|fontTools

.DEFAULT_GOAL := help
.PHONY: help install check lint types test chaos soak demo demo-images demo-distill demo-serve demo-models \
	real-model bench bench-images

help: ## list these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "make %-12s %s\n", $$1, $$2 }'

install: $(INSTALLED) ## create .venv and install Paceline into it

$(INSTALLED): pyproject.toml setup.py constraints-cpu.txt $(wildcard models/compute/x86/csrc/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile $(CONSTRAINTS) --editable '.[dev]'
	@$(BIN)/python -m compileall -qq -j 0 -x '/($(NOT_COMPILED))/' $(VENV)/lib/python*/site-packages \
		actors cluster models pipelines || true
	@touch $@

# One thread for each of the tests that run side by side.
check: lint types ## formatter, linter, type checker and the quick tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto -m 'not slow and not ray'

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

test: lint types ## everything that CI runs, from nothing
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --durations 20 -m 'not ray'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --kernels off -m 'not slow and not ray' \
		tests/models --ignore tests/models/metrics --ignore tests/models/training \
		--ignore tests/models/drafting/sizing --ignore tests/models/requests \
		--ignore tests/models/tokenizers --ignore tests/models/memory \
		--ignore tests/models/loop/test_random_crossings.py \
		--ignore tests/models/drafting/heads/test_eagle_prefixes.py \
		--ignore tests/models/drafting/distil/test_renewed.py \
		--ignore tests/models/students/test_known_answers.py \
		--ignore tests/models/students/test_score.py \
		--ignore tests/models/students/test_two_head.py --ignore-glob '*/test_devices.py'
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --durations 20 -m ray \
		tests/actors tests/cluster tests/pipelines

chaos: $(INSTALLED) ## tests of faults with 200 random orders and moments of each (hours)
	CHAOS=200 $(BIN)/python -m pytest -q tests/pipelines/generate/test_chaos.py \
		tests/pipelines/serve/test_chaos_streams.py \
		tests/pipelines/generate/test_lost_nodes.py \
		tests/pipelines/generate/test_joining_nodes.py tests/pipelines/generate/test_ray_client.py \
		tests/pipelines/generate/test_killed_roles.py \
		tests/pipelines/generate/test_s3_faults.py \
		tests/pipelines/generate/test_s3_outages.py \
		tests/pipelines/generate/test_two_hosts.py \
		tests/pipelines/distill/test_distill_s3.py \
		tests/pipelines/distill/test_drafter_chaos.py \
		tests/pipelines/distill/test_renewed_chaos.py \
		tests/models/drafting/distil/test_killed_training.py

soak: $(INSTALLED) ## serve clients of all kinds for ten minutes while processes die behind them, and more
	SOAK=600 KILLS=50 $(BIN)/python -m pytest -q -s tests/pipelines/serve/test_soak.py \
		tests/pipelines/serve/test_killed_ingress.py \
		tests/pipelines/serve/test_rolling_update.py \
		tests/pipelines/serve/test_warm_routing.py
	SOAK=600 $(BIN)/python -m pytest -q -s --timeout 7200 \
		tests/pipelines/serve/test_cuts.py \
		tests/pipelines/serve/test_disconnects.py \
		tests/pipelines/serve/test_fields.py \
		tests/pipelines/serve/test_chained.py \
		tests/pipelines/serve/test_schemas.py \
		tests/pipelines/serve/test_hostile.py

demo: $(INSTALLED) ## complete a few prompts three ways, and compare
	$(BIN)/python examples/demo.py

demo-images: $(INSTALLED) ## decode the same images each way, and compare
	$(BIN)/python -m examples.demo_images

demo-distill: $(INSTALLED) ## train a student of the digits model and a draft model of the text model, with reports
	$(BIN)/python -m examples.demo_distill

demo-serve: $(INSTALLED) ## serve the demo model, ask it with curl and with OpenAI's client, stop it
	$(BIN)/python examples/demo_serve.py

demo-models: $(INSTALLED) ## train the models in examples/models anew (2.5 hours on two cores)
	$(BIN)/python examples/train_demo_models.py
	$(BIN)/python examples/train_digits.py
	$(BIN)/python -m examples.train_student
	$(BIN)/python -m examples.train_student --target examples/models/digits-scale --records 6000 --steps 1200

real-model: $(INSTALLED) ## fetch SmolLM2-135M-Instruct into examples/models (93 MB; 270 MB on disk)
	$(BIN)/python examples/real_model.py

bench: $(INSTALLED) ## measure against transformers and against plain decoding
	$(BIN)/python -m benchmarks.text

bench-images: $(INSTALLED) ## measure ways of decoding images: passes, time, quality
	$(BIN)/python -m benchmarks.images
