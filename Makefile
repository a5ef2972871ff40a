# `make` alone prints this help. Each target is one line of a real tool wherever it can be.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

.PHONY: help standins secrets up down clean logs ps test-compose

help: ## print this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---- Docker: the compose profile ---------------------------------------------------------------

standins: ## rebuild the images that compose.yaml names from package registries, and write .env
	@images/standin/build

secrets: ## make .secrets/ with a Redis and a Milvus password, where missing
	@images/secrets

up: secrets ## build, start and wait for the whole platform; then print what to try
	@images/compose-plugin
	docker compose up --build --detach --wait --wait-timeout 900
	@images/try

down: ## stop it all; the data stay
	docker compose down --timeout 15

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
