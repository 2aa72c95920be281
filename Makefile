# make demo     solve Burgers' equation, show the progress, draw docs/burgers.png, check the answer
# make test     the default test suite            make lint   ruff and pyright
# make docs     the documentation, warnings fail   make bench  the tables of docs/benchmarks.md
#
# A virtual environment in .venv is created once and re-used. torch goes in first and by itself,
# because the plain package can bring gigabytes of CUDA with it: TORCH= chooses another build.
# --no-compile: Python compiles what is imported anyway, which is a fraction of what is installed.

TORCH   ?= torch==2.13.0
PYTHON  ?= python3
VENV    ?= .venv
BIN     := $(VENV)/bin
RUN     := $(BIN)/python
OUT     ?= out
SHARE   ?= --numprocesses=auto --dist=worksteal

.PHONY: demo test slow lint docs bench clean

demo: $(VENV)/.pinnkit
	$(RUN) benchmarks/demo.py --out $(OUT) --picture docs/burgers.png

test: $(VENV)/.pinnkit-dev
	$(RUN) -m pytest $(SHARE) $(PYTEST)

slow: $(VENV)/.pinnkit-dev
	$(RUN) -m pytest --runslow $(PYTEST)

lint: $(VENV)/.pinnkit-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pyright

docs: $(VENV)/.pinnkit-dev
	$(RUN) -m sphinx -W --keep-going -q -b html docs docs/_build/html

bench: $(VENV)/.pinnkit-dev
	for row in accuracy causal_pinn lagrangian_pinn spectral_mixture_gp convergent_graph implicit_layers peers references jets \
	    jacobian_rows step_time race honesty estimates declarations resume ranks; do \
	    echo "== benchmarks/$$row.py"; $(RUN) benchmarks/$$row.py || exit 1; done

clean:
	rm -rf build dist docs/_build *.egg-info $(OUT)

$(RUN):
	$(PYTHON) -m venv $(VENV)

# The stamps depend on pyproject.toml only: an editable install sees every other change by itself.
$(VENV)/.pinnkit: pyproject.toml | $(RUN)
	$(RUN) -m pip install --quiet --no-compile "$(TORCH)"
	$(RUN) -m pip install --quiet --no-compile -e .
	touch $@

$(VENV)/.pinnkit-dev: pyproject.toml | $(RUN)
	$(RUN) -m pip install --quiet --no-compile "$(TORCH)"
	$(RUN) -m pip install --quiet --no-compile -e ".[dev,docs]"
	touch $@ $(VENV)/.pinnkit
