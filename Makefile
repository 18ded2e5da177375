# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

PYTHON ?= python3
TEST := $(PYTHON) scripts/test.py

.DEFAULT_GOAL := help
.PHONY: help run test lint sanity unit readers integration artifact importer molecule bench build setup clean

help: ## show the commands
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1|\2/p' Makefile | awk -F'|' '{printf "  make %-12s %s\n", $$1, $$2}'

run: ## run the whole maintenance on a small sample (folder: MLOPS_RUN_DIR, ./mlops-fleet-run)
	@$(PYTHON) scripts/run.py

test: ## everything below, one after the other, with a table at the end
	@$(TEST)

lint: ## ruff, mypy on _core, ansible-lint, yamllint, shellcheck
	@$(TEST) lint

sanity: ## ansible-test sanity on both ansible-core lines
	@$(TEST) sanity

unit: ## unit tests, and those of _core on each Python found
	@$(TEST) unit

readers: ## other people's GPU readers on the simulated GPUs
	@$(TEST) readers

integration: ## the integration targets, against real things
	@$(TEST) integration

importer: ## build, install into an empty path, and Galaxy's own checks
	@$(TEST) artifact

molecule: ## booted nodes over SSH
	@$(TEST) molecule

bench: ## every benchmark in tests/benchmarks, against an empty module and other tools
	@$(PYTHON) scripts/setup.py dev
	@.build/dev/bin/python tests/benchmarks/bench.py

build: ## the collection's artifact, in .build/artifact
	@$(PYTHON) scripts/test.py --build-only

setup: ## only install what the tests need
	@$(PYTHON) scripts/setup.py test

clean: ## remove .build (virtual environments, logs) and the sample; node images stay in podman
	@$(PYTHON) scripts/nodes.py down --group molecule || true
	@$(PYTHON) scripts/nodes.py down --group molecule-schedule || true
	@$(PYTHON) scripts/nodes.py down --group molecule-health || true
	@$(PYTHON) scripts/nodes.py down --group molecule-agent || true
	rm -rf .build mlops-fleet-run mlops-fleet-*.tar.gz
