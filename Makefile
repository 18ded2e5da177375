# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

PYTHON ?= python3
# Sets up what is missing, then runs sessions of noxfile.py. Arguments for a session's tool: make unit ARGS="-k verdict"
CHECKS := $(PYTHON) scripts/checks.py
ARGS ?=
SESSIONS := lint typing docs unit system mutation sanity readers integration importer molecule fleet libraries bench build

.DEFAULT_GOAL := help
.PHONY: help run test setup clean $(SESSIONS)

help: ## show the commands
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1|\2/p' Makefile | awk -F'|' '{printf "  make %-12s %s\n", $$1, $$2}'

run: ## run the whole maintenance on a small sample (directory: MLOPS_RUN_DIR, ./mlops-fleet-run)
	@$(PYTHON) scripts/run.py

test: ## lint to molecule, side by side where that is safe, with a table at the end
	@$(CHECKS)

lint: ## ruff, yamllint, ansible-lint, shellcheck, generated files
typing: ## mypy, strict
docs: ## antsibull-docs, changelog fragments
unit: ## fast tests on both ansible-core lines; those of _core on each Python found
system: ## tests with servers, kill points and hangs, on the oldest and newest Python
mutation: ## change plans, guards and limits, and see whether tests notice
sanity: ## ansible-test sanity on both ansible-core lines
readers: ## other projects' GPU readers on the simulated GPUs
integration: ## playbooks over several hosts, and the integration targets
importer: ## build, install into an empty path, and Galaxy's own checks
molecule: ## booted nodes over SSH
fleet: ## twelve booted nodes with troubles, on the command line and under ansible-runner (nightly)
libraries: ## clean what torch, lightning, transformers, orbax and huggingface_hub made (nightly)
bench: ## every benchmark in tests/benchmarks, against an empty module and other tools
build: ## the collection's artifact, in .build/artifact

$(SESSIONS):
	@$(CHECKS) $@ $(if $(ARGS),-- $(ARGS))

setup: ## only install what the tests need
	@$(PYTHON) scripts/setup.py test

clean: ## remove .build (virtual environments, logs) and the sample; node images stay in podman
	@for group in molecule molecule-schedule molecule-health molecule-agent fleet; do $(PYTHON) scripts/nodes.py down --group $$group || true; done
	rm -rf .build mlops-fleet-run mlops-fleet-*.tar.gz
