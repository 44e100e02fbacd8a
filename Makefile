# Everything installs itself into .venv; nothing outside this directory changes, except that `make test`
# installs Debian's chromium, postgresql, nginx-light and prometheus where they are missing and may be installed.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
# Fonts, because a browser without any shows boxes instead of letters.
CHROMIUM := chromium fonts-dejavu-core
CHP := configurable-http-proxy@5.3.0
# Most tests wait for a process, a deadline or a browser: two for each CPU keep it busy. In the order of the
# tree, for the first folders have the longest ones.
IN_PARALLEL = --numprocesses $(or $(JOBS),$(shell echo $$(( 2 * $$(nproc) )))) --no-loadscope-reorder
PYENV := $${PYENV_ROOT:-$$HOME/.pyenv}/versions

.PHONY: help demo test test-slow lint format cases fuzz chaos bench bench-check bench-crowd bench-emulated bench-instructions peers chp picture docs reference pins clean chromium postgresql nginx prometheus

help:  ## Show this list
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 27

demo: .venv/demo.stamp  ## Start VISA (a stand-in), JupyterLab and the proxy, and print the links
	@$(BIN)/python -m visa_jupyter_proxy demo

test: lint chromium postgresql nginx prometheus  ## Check everything: style, types, imports, then all tests in real processes and a real browser
	@$(BIN)/python -m pytest $(IN_PARALLEL)

lint: .venv/dev.stamp  ## Check style, types and the direction of imports
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m docs.generated --check

format: .venv/dev.stamp  ## Repair what can be repaired by itself
	@$(BIN)/ruff check --fix-only
	@$(BIN)/ruff format

test-slow: .venv/dev.stamp  ## Run only the tests that take half a minute or more (`make test` runs them too)
	@$(BIN)/python -m pytest $(IN_PARALLEL) -m slow

cases: .venv/dev.stamp  ## Show which cases of the wire are covered, and whether they pass
	@$(BIN)/python -m pytest $(IN_PARALLEL) --cases -q tests/wire tests/process tests/fuzz

fuzz: .venv/dev.stamp  ## Send mutations of everything to a proxy, for DURATION=60 seconds; SEED=... repeats a run
	@PYTHONPATH=tests $(BIN)/python -m fuzz --seconds $(or $(DURATION),60) $(addprefix --seed ,$(SEED))

chaos: .venv/dev.stamp postgresql  ## Kill workers and nodes KILLS=100 times while people work and VISA fails; SEED=... repeats a run
	@PYTHONPATH=tests $(BIN)/python -m chaos --kills $(or $(KILLS),$(if $(DURATION),100000,100)) \
	  $(addprefix --seconds ,$(DURATION)) $(addprefix --seed ,$(SEED)) $(if $(SQLITE),--sqlite)

# Names of files as the shell has them: they may contain what make would split.
BENCHED = $(addprefix --rounds ,$(ROUNDS)) $(if $(ONLY),--only $(ONLY)) $(if $(PROXIES),--proxies $(PROXIES)) \
	  $(addprefix --seconds ,$(SECONDS)) $(addprefix --warm-up ,$(WARM_UP)) $(if $(OUTPUT),--output "$$OUTPUT")

bench: .venv/dev.stamp peers  ## Measure what proxying costs, beside nginx and others (ONLY="small ws" ROUNDS=1 PROXIES="ours nginx")
	@$(BIN)/python -m benchmarks $(BENCHED)

bench-check: .venv/dev.stamp  ## Fail when we cost more than a tenth more than committed, as a multiple of nginx
	@if [ "$(NEEDS)" = instructions ] && ! $(BIN)/python -m benchmarks --comparable; then exit 0; fi; \
	$(MAKE) peers; $(BIN)/python -m benchmarks --check $(if $(ONLY),--only $(ONLY)) $(addprefix --rounds ,$(ROUNDS))

bench-emulated: .venv/dev.stamp chp  ## Count instructions, the kernel's too, where perf cannot: on an emulated machine (options of `make bench`; WARM_UP=2)
	@$(BIN)/python -m benchmarks.emulated $(if $(CHECKOUT),--checkout "$$CHECKOUT") $(BENCHED)

bench-instructions: .venv/dev.stamp  ## Count our instructions by callgrind (WORK=small, stream, connection, ws, ws64k, kernel, open or openkernel)
	@$(BIN)/python -m benchmarks.callgrind $(or $(WORK),small)

bench-crowd: .venv/dev.stamp  ## Measure what requests wait while SESSIONS=5000 kernel channels are opened at once (CPUS=apart or shared, ROUNDS=2, WORKERS=1)
	@$(BIN)/python -m benchmarks.crowd $(addprefix --sessions ,$(SESSIONS)) $(addprefix --cpus ,$(CPUS)) \
	  $(addprefix --rounds ,$(ROUNDS)) $(addprefix --workers ,$(WORKERS))

# Not that of the board, which wants an hour of company.
picture: .venv/dev.stamp chromium  ## Take the pictures of README and docs anew
	@PICTURE=docs/images/jupyterlab.png $(BIN)/python -m pytest tests/e2e/test_jupyterlab.py
	@all=$$(mktemp -d); trap 'rm -rf "$$all"' EXIT; \
	PICTURES=$$all $(BIN)/python -m pytest tests/e2e/test_pages.py -k looks; \
	cp "$$all/building-desktop-light-en.png" docs/images/page-waiting.png; \
	cp "$$all/signed-out-phone-dark-fr.png" docs/images/page-signed-out.png; \
	cp "$$all/unreachable-phone-light-en.png" docs/images/page-unreachable.png

docs: .venv/dev.stamp  ## Make the site of docs/ in build/site, every warning an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

reference: .venv/dev.stamp  ## Write the pages of docs/reference that are made from the code
	@$(BIN)/python -m docs.generated

# The build backend is pinned with the rest, so that nothing is fetched without a hash.
pins: .venv/pyvenv.cfg  ## Pin what pyproject.toml asks for; UPGRADE=1 takes the newest versions of everything
	@tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	$(BIN)/python -m venv "$$tmp/uv"; "$$tmp/uv/bin/pip" install --quiet uv; \
	export UV_CUSTOM_COMPILE_COMMAND='make pins'; \
	pin() { "$$tmp/uv/bin/uv" pip compile --quiet --universal $(if $(UPGRADE),--upgrade) \
	  --generate-hashes --no-emit-index-url --python-version 3.12 "$$@"; }; \
	printf 'hatchling\neditables\n' > "$$tmp/build"; \
	pin pyproject.toml - --extra demo --extra otel -o requirements.txt < "$$tmp/build"; \
	pin pyproject.toml - --extra demo --extra otel --group dev -c requirements.txt -o requirements-dev.txt < "$$tmp/build"; \
	pin pyproject.toml -c requirements.txt -o deploy/requirements.txt; \
	echo hatchling | pin - -c requirements.txt -o deploy/requirements-build.txt

clean:  ## Remove what was installed and made here
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache tests/e2e/artifacts
	find src tests -name __pycache__ -prune -exec rm -rf {} +

.venv/demo.stamp: requirements.txt pyproject.toml .venv/pyvenv.cfg
.venv/dev.stamp: requirements-dev.txt pyproject.toml .venv/pyvenv.cfg
.venv/demo.stamp .venv/dev.stamp:
	@echo "Installing $< ..."
	@$(BIN)/python -m pip install --quiet --require-hashes -r $<
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

# Each candidate is run, for pyenv's shims may stand for nothing.
.venv/pyvenv.cfg:
	@no_venv=; \
	for python in python3.13 python3.12 python3.14 python3 \
	    "$(PYENV)"/{3.13,3.12,3.14}.*/bin/python; do \
	  version=$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2]); sys.exit(sys.version_info < (3, 12))' \
	    2>/dev/null) || continue; \
	  if ! "$$python" -c 'import ensurepip' 2>/dev/null; then no_venv=$$version; continue; fi; \
	  echo "Creating .venv with Python $$version ..."; \
	  exec "$$python" -m venv --clear .venv; \
	done; \
	if [ "$$no_venv" ]; then echo "Python $$no_venv cannot make virtual environments yet:  apt-get install python$$no_venv-venv"; \
	else echo "No Python 3.12 or newer found, neither as python3.13, python3.12, python3.14 or python3, nor pyenv's."; \
	  echo "On Debian 13:  apt-get install python3 python3-venv;  with pyenv:  pyenv install 3.13"; fi >&2; exit 1

# What cannot be installed is left out, and the benchmark says so. Debian would start nginx and HAProxy as
# services at once: a policy forbids that meanwhile.
peers: chp
	@missing=; for program in nginx:nginx-light haproxy:haproxy wrk:wrk; do \
	  PATH="$$PATH:/usr/sbin" command -v "$${program%%:*}" >/dev/null || missing+=" $${program##*:}"; done; \
	if [ "$$(id -u)" = 0 ]; then sudo=; elif sudo -n true 2>/dev/null; then sudo=sudo; else sudo=none; fi; \
	if [ "$$missing" ] && [ "$$sudo" = none ]; then echo "Missing:  apt-get install$$missing" >&2; \
	elif [ "$$missing" ]; then echo "Installing$$missing ..."; policy=/usr/sbin/policy-rc.d; \
	  if [ -e $$policy ]; then policy=; else printf '#!/bin/sh\nexit 101\n' | $$sudo tee $$policy >/dev/null; \
	  $$sudo chmod +x $$policy; trap "$$sudo rm -f $$policy" EXIT; fi; $$sudo apt-get -qq update; \
	  $$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends $$missing; fi

chp:
	@if [ -e node_modules/configurable-http-proxy ]; then exit 0; fi; \
	if ! command -v npm >/dev/null; then echo "Missing: npm, for $(CHP)" >&2; exit 0; fi; \
	echo "Installing $(CHP) ..."; \
	npm install --prefix . --no-save --no-package-lock --no-audit --no-fund --silent $(CHP) \
	  || echo "Not installed: $(CHP)" >&2

chromium:
	@if command -v chromium >/dev/null; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ]; then sudo=; elif sudo -n true 2>/dev/null; then sudo=sudo; else \
	  echo "The tests need a browser:  apt-get install --no-install-recommends $(CHROMIUM)" >&2; exit 1; fi; \
	echo "Installing $(CHROMIUM) ..."; \
	$$sudo apt-get -qq update; \
	$$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends $(CHROMIUM)

# Debian would start them as services at once: a policy forbids that meanwhile. Our tests start their own.
INSTALL = if [ "$$(id -u)" = 0 ]; then sudo=; elif sudo -n true 2>/dev/null; then sudo=sudo; else \
	  echo "Tests with $(1) are skipped without it:  apt-get install --no-install-recommends $(1)" >&2; exit 0; fi; \
	echo "Installing $(1) ..."; policy=/usr/sbin/policy-rc.d; \
	if [ ! -e $$policy ]; then printf '\#!/bin/sh\nexit 101\n' | $$sudo tee $$policy >/dev/null; \
	  $$sudo chmod +x $$policy; trap "$$sudo rm -f $$policy" EXIT; fi; \
	$$sudo apt-get -qq update; \
	$$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends $(1)

postgresql:
	@if compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null; then exit 0; fi; \
	$(call INSTALL,postgresql)

prometheus:
	@if command -v promtool >/dev/null; then exit 0; fi; $(call INSTALL,prometheus)

nginx:
	@if PATH="$$PATH:/usr/sbin" command -v nginx >/dev/null; then exit 0; fi; $(call INSTALL,nginx-light)
