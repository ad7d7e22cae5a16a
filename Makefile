# `make` lists the targets. Each one does its own set-up from a fresh clone.
PYTHON ?= python3
WORKERS ?= 2

BIN := .venv/bin
DEMO_BIN := $(CURDIR)/.venv-demo/bin
# The first of demo, demo-2, ... that is free: an earlier demo may hold somebody's work.
DEMO := $(shell name=demo; number=1; \
    while [ -e $$name ]; do number=$$((number + 1)); name=demo-$$number; done; \
    echo $$name)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test check fmt lint types golden soak bench constraints clean

help: ## list the targets
	@echo "make TARGET, where TARGET is one of:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile

setup: .venv/.installed ## make .venv with lightgen (editable) and every tool in it
	@echo "Ready. To use it: . .venv/bin/activate"

demo: ## install into .venv-demo, then generate, train, test and predict in a new folder
	@$(call new_venv,.venv-demo)
	"$(DEMO_BIN)/python" -m pip install -c constraints.txt .
	@mkdir $(DEMO)
	$(call show,$(DEMO),lightgen new mymodel --defaults)
	$(call show,$(DEMO)/mymodel,lightgen train)
	$(call show,$(DEMO)/mymodel,lightgen test --ckpt best)
	$(call show,$(DEMO)/mymodel,lightgen predict --ckpt best)
	@printf '\nThe project is $(DEMO)/mymodel; its first run:\n'
	@cd $(DEMO)/mymodel && find runs/1 -type f | sort | sed 's/^/  /'
	@printf '\nGo on with:\n  . .venv-demo/bin/activate\n  cd $(DEMO)/mymodel\n'
	@printf '  lightgen train --trainer.max_epochs 20 --model.lr 3e-3\n'

test: check ## lint, types and the whole test suite
	$(BIN)/python -m pytest -n $(WORKERS)

check: lint types ## lint and types only: what to run before each commit

fmt: .venv/.installed ## format the code and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/black .

lint: .venv/.installed ## ruff, and black without writing
	$(BIN)/ruff check .
	$(BIN)/black --check .

types: .venv/.installed ## mypy, strict, over both packages
	$(BIN)/mypy

golden: .venv/.installed ## write golden files and docs/compat again and show what changed
	UPDATE_GOLDEN=1 $(BIN)/python -m pytest -q tests/golden tests/contract/test_public_names.py
	git --no-pager diff --stat --patch -- tests/golden docs/compat.md docs/compat

soak: .venv/.installed ## the drawn tests, many times longer: about an hour
	SOAK_SEEDS=1000:4000 $(BIN)/python -m pytest -n $(WORKERS) --timeout 3000 \
	    tests/contract/test_random_runs.py
	LIGHTGEN_CORPUS=60000 LIGHTGEN_MUTANTS=20000 \
	    $(BIN)/python -m pytest -n $(WORKERS) --timeout 3000 tests/unit/regen
	LIGHTGEN_KILLS=500 $(BIN)/python -m pytest --timeout 3000 tests/fault/test_killed_fit.py
	LIGHTGEN_SOAK=1 $(BIN)/python -m pytest -n $(WORKERS) --timeout 3000 tests/fault \
	    tests/distributed/test_restarts.py

bench: .venv/.installed ## start-up, steps, two processes and checkpoints beside the peers, memory: writes docs/benchmarks.md
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[bench]"
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/page.py

constraints: .venv/.installed ## pin again, to the newest versions that pyproject.toml admits
	$(BIN)/python -m pip install uv
	sed -n '/^#/p' constraints.txt > constraints.new
	echo 'torch==2.13.0' | $(BIN)/uv pip compile pyproject.toml --extra dev --extra bench \
	    --constraint - --universal --python-version 3.10 --upgrade \
	    --no-annotate --no-header --quiet \
	    | grep -vE '^(cuda|nvidia|triton)' >> constraints.new
	mv constraints.new constraints.txt

clean: ## remove the virtual environments, caches and builds; demo projects stay
	rm -rf .venv .venv-demo build dist .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is what makes a second `make setup` instant.
.venv/.installed: pyproject.toml constraints.txt
	@$(call new_venv,.venv)
	$(BIN)/python -m pip install -c constraints.txt -e ".[dev]"
	@touch $@

# new_venv DIR: make a virtual environment unless there is one.
define new_venv
$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit( \
    "lightgen needs Python 3.10 or newer, and $(PYTHON) is " + sys.version.split()[0] \
    + ". Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)")' \
&& { test -x $(1)/bin/pip || $(PYTHON) -m venv $(1); }
endef

# show DIR COMMAND: print a command as a person would type it, then run it there.
define show
@printf '\n$$ %s\n' '$(2)'; cd $(1) && PATH="$(DEMO_BIN):$$PATH" $(2) </dev/null
endef
