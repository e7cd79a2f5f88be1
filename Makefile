# Each target starts from a bare clone: what it needs of .venv it makes itself.
# PYTHON=... chooses the interpreter for a new .venv, JOBS=... how many test workers run at once. Tests wait about half of
# their time, for servers that start or end, so three workers keep two cores busy.

PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$python; break; }; done)
JOBS ?= 3

BIN := .venv/bin
INSTALLED := .venv/.installed
EXTRAS := local,aks,online,autoscale,clusters,tensorflow,torch,onnx,cli,async,otel,parquet,emulator
# Servers take free ports, so files may run beside each other; the tests of one file share servers and stay together.
# tests/conftest.py has the order: the long files first.
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

.PHONY: help setup demo test test-all check check-index bench lock clean

help:
	@echo 'make setup      .venv with the package, the frameworks (CPU is enough) and the tools'
	@echo 'make demo       train on MNIST, deploy on this machine, score 2,000 digits'
	@echo 'make test       all tests but the slow ones'
	@echo 'make test-all   the slow ones too; some ask the package registries'
	@echo 'make check      ruff, pyright, house rules'
	@echo 'make bench      the measurements in bench/'
	@echo 'make lock       compile constraints.txt anew'
	@echo 'make clean      remove what these made, .venv included'

setup: $(INSTALLED)

# pip first: the one that comes with Python 3.11 does not know dependency groups.
$(INSTALLED): pyproject.toml constraints.txt
	@test -x $(BIN)/python || test -n '$(PYTHON)' \
		|| { echo 'Python 3.11 or newer is needed and none was found. Try: make setup PYTHON=/path/to/python3.11' >&2; exit 1; }
	test -x $(BIN)/python || '$(PYTHON)' -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]' --group dev
	@touch $@

demo: $(INSTALLED)
	$(BIN)/gpu-infer demo

test: $(INSTALLED)
	$(PYTEST)

test-all: $(INSTALLED)
	$(PYTEST) -m 'not live'

check: $(INSTALLED) check-index
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --project .
	$(BIN)/pyright --project tests

# The index to install from is each user's own choice: no file that pip, conda or uv reads may name one.
check-index:
	@found=$$(grep -nIE '://|index-url|find-links' constraints.txt environment.yml gpu_infer/templates/*/conda.yml bench/_serving/requirements/*.txt); \
	if [ -n "$$found" ]; then echo "$$found"; echo 'These lines name a package index; take the address out.' >&2; exit 1; fi

bench: $(INSTALLED)
	@set -e; for script in $(sort $(wildcard bench/[!_]*.py)); do echo "== $$script"; $(BIN)/python "$$script"; done

# Keeps the versions that still fit; `make lock LOCK=--upgrade` takes the newest, `LOCK='--upgrade-package torch'` one.
# Markers are cut off: a constraint on a package that is not installed does nothing. No package may occur twice.
lock: export LC_ALL = C
lock: $(INSTALLED)
	cp constraints.txt constraints.tmp
	$(BIN)/uv pip compile pyproject.toml $(LOCK) --quiet --all-extras --group dev --universal --python-version 3.11 \
		--no-header --no-annotate --output-file constraints.tmp
	{ echo '# Exact versions for all extras and dependency groups; `make lock` compiles them. Python 3.11, Linux and macOS.'; \
		sed 's/ *;.*//' constraints.tmp | sort -u; } > constraints.txt
	@rm constraints.tmp
	@twice=$$(cut -d= -f1 constraints.txt | uniq -d); test -z "$$twice" || { echo "Locked twice: $$twice" >&2; exit 1; }

clean:
	rm -rf .venv bench/.venvs .ruff_cache .pytest_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
