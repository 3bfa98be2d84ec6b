# Every target works on a fresh machine with Python 3.11 or newer; `interop`
# needs Go as well.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INTEROP_BIN ?= $(CURDIR)/interop/bin
GO ?= go

.PHONY: demo test soak interop interop-build bench docs lint typing imports clean

KERNEL = $(addprefix tsrt/dataplane/,kernel.c kernel.h kernelbuild.py)

# The environment with tsrt itself, editable, and what its tests need.
$(BIN)/.installed: setup.cfg setup.py pyproject.toml $(KERNEL)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24" "setuptools>=77"
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $@

# The same with the tools of the house.
$(BIN)/.dev-installed: $(BIN)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[dev,docs]"
	touch $@

demo: $(BIN)/.installed
	$(BIN)/python examples/demo.py $(if $(KEEP),--keep)

test: $(BIN)/.installed
	TSRT_INTEROP_BIN=$(INTEROP_BIN) $(BIN)/python -m twisted.trial --jobs 2 tsrt

# A day of faults on simulated time: 20 nodes, one stream for each pair.  Takes
# some hours of real time; SOAK="--hours 1 --nodes 6" takes less than a minute.
soak: $(BIN)/.installed
	$(BIN)/python -m tsrt.testing.soak $(SOAK)

# Real Tailscale, Headscale, DERP and WireGuard programs, built from the Go
# module proxy, and the tests that run against them.
interop: $(BIN)/.installed interop-build
	TSRT_INTEROP_BIN=$(INTEROP_BIN) TSRT_INTEROP_REQUIRED=1 \
		$(BIN)/python -m twisted.trial tsrt.test.interop

interop-build:
	GO=$(GO) sh interop/build.sh $(INTEROP_BIN)

# All figures beside those of the Go node, in less than half an hour; needs root.
BENCHMARKS = tunnel netstack paths netmap profile scale join \
	throughput latency connections memory

bench: $(BIN)/.installed interop-build
	rm -f benchmarks/results.json
	set -e; for name in $(BENCHMARKS); do \
		echo "-- $$name"; \
		TSRT_INTEROP_BIN=$(INTEROP_BIN) $(BIN)/python -m benchmarks.$$name; \
	done

lint: $(BIN)/.dev-installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

typing: $(BIN)/.dev-installed
	$(BIN)/mypy tsrt examples benchmarks

imports: $(BIN)/.dev-installed
	$(BIN)/lint-imports

docs: $(BIN)/.dev-installed
	$(BIN)/sphinx-build -W -b html docs docs/_build/html

clean:
	rm -rf $(VENV) .tox build dist *.egg-info docs/_build _trial_temp* interop/bin demo-state
