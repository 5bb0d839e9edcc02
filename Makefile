# `make help` explains every target. On Windows, use the plain commands in docs/installing.md.
PYTHON ?= python3
ROOT ?= $(HOME)/imageClassification
VENV := .venv
RUN := $(VENV)/bin/python
# uv takes a tenth of pip's time. Where it cannot be had, or cannot find a package, such as on a mirror that only pip is told
# of, pip does it. To install into an environment: $(call install,its folder,what)
install = echo "Installing into $(1): $(2)" && $(VENV)/bin/uv pip install --quiet --python $(1) $(2) 2>/dev/null || \
	$(RUN) -m pip --quiet --disable-pip-version-check --python $(1) install $(2)
PINNED := -c constraints.txt
INCLUDED := $(patsubst %,requirements-%.txt,serve train notebooks)
STEPS := 0_downloadData 1_prepareData 2_refineDNN 3_runDNN 4_trainSVM 5_evaluate

.DEFAULT_GOAL := help
.PHONY: help setup setup-refine demo serve notebooks stage test test-cluster check docs runs bench bench-accuracy bench-serve bench-cluster clean

help:  ## Explain the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  DATA_DIR is $(ROOT); another: make demo ROOT=/some/folder"

setup: $(VENV)/.setup  ## Make the environment in .venv (a minute, once)

setup-refine: $(VENV)/.refine  ## Add PyTorch: for 'dnn', other networks, and GPUs (a minute, 5 GB)

$(VENV)/.setup: requirements.txt $(INCLUDED) constraints.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; name one: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip --quiet --disable-pip-version-check install $(PINNED) uv || true
	@$(call install,$(VENV),$(PINNED) -r requirements.txt)
	@$(call install,$(VENV),--no-deps --editable .)
	@touch $@

$(VENV)/.refine: $(VENV)/.setup requirements-refine.txt
	@$(call install,$(VENV),$(PINNED) -r requirements-refine.txt)
	@touch $@

$(VENV)/.demo: $(VENV)/.setup requirements-demo.txt
	@$(call install,$(VENV),$(PINNED) -r requirements-demo.txt)
	@touch $@

$(VENV)/.dev: $(VENV)/.setup $(VENV)/.refine requirements-dev.txt requirements-cluster.txt
	@$(call install,$(VENV),$(PINNED) -r requirements-dev.txt -r requirements-cluster.txt)
	@touch $@

$(VENV)/.bench: $(VENV)/.dev requirements-bench.txt
	@$(call install,$(VENV),$(PINNED) -r requirements-bench.txt)
	@touch $@

# What the service runs in elsewhere, for the tests: the container, and Azure ML, whose server wants older versions.
$(VENV)/serve/.setup: requirements-serve.txt constraints.txt | $(VENV)/.setup
	$(RUN) -m venv --clear --without-pip $(@D)
	@$(call install,$(@D),$(PINNED) -r requirements-serve.txt)
	@touch $@

$(VENV)/azure/.setup: requirements-azure.txt requirements-serve.txt | $(VENV)/.setup
	$(RUN) -m venv --clear --without-pip $(@D)
	@$(call install,$(@D),-r requirements-azure.txt)
	@touch $@

# The tests drive pages in Chromium, and call the service through nginx, which is only unpacked: installed, it would start.
# Where one of them is not, and cannot be had, its tests are skipped and say so.
$(VENV)/.programs: | $(VENV)/.setup
	command -v chromium >/dev/null || { test "$$(id -u)" = 0 && apt-get -qq update && \
		DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends chromium >/dev/null; } || true
	PATH="$$PATH:/usr/sbin"; command -v nginx >/dev/null || { mkdir -p $(VENV)/nginx && cd $(VENV)/nginx && \
		{ apt-get -qq download nginx || { apt-get -qq update && apt-get -qq download nginx; } } && \
		dpkg -x nginx_*.deb .; } 2>/dev/null || true
	@touch $@

demo: $(VENV)/.demo  ## Scripts 0 to 5 on 2,624 images of solar cells (one or two minutes after the set-up)
	@for step in $(STEPS); do \
		echo; echo "== $$step"; \
		$(RUN) scripts/$$step.py --rootDir "$(ROOT)" || exit 1; \
	done

serve: $(VENV)/.setup  ## The trained classifier as a service and a web page on this machine
	$(RUN) scripts/deploymain.py --rootDir "$(ROOT)"

notebooks: $(VENV)/.setup  ## Look at images, mend labels, understand results, in the browser (JupyterLab)
	PARAMETERS_rootDir="$(ROOT)" $(VENV)/bin/jupyter lab --notebook-dir=notebooks

stage: $(VENV)/.setup  ## A folder from which the trained classifier is deployed to Azure ML
	$(RUN) scripts/deploymain.py --rootDir "$(ROOT)" --stage

test: $(VENV)/.dev $(VENV)/.programs $(VENV)/serve/.setup $(VENV)/azure/.setup  ## The whole test suite
	$(RUN) -m pytest -n 2 --dist worksteal --durations=10

test-cluster: $(VENV)/.dev  ## All tests of the cluster, on Ray nodes of this machine (6 minutes)
	$(RUN) -m pytest -m "cluster or not cluster" tests/base/test_cluster.py tests/web/download/test_on_cluster.py

check: $(VENV)/.dev  ## Lint, format and types
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy

docs: $(VENV)/.setup  ## Write anew what the documentation takes from the code
	$(RUN) docs/generate.py

runs: $(VENV)/.setup  ## Compare all runs in the browser (MLflow)
	$(RUN) -m libraries.history "$(ROOT)"
	$(VENV)/bin/mlflow ui --backend-store-uri "sqlite:///$(ROOT)/mlflow.db"

bench: $(VENV)/.dev $(VENV)/.demo  ## Measure speed and memory against other tools; writes BENCHMARKS.md
	$(RUN) benchmarks/run.py

bench-accuracy: $(VENV)/.dev $(VENV)/.demo  ## Measure accuracy over several seeds (hours on a CPU); writes BENCHMARKS.md
	$(RUN) benchmarks/run.py accuracy training_accuracy

bench-cluster: $(VENV)/.dev  ## Measure scripts 1 and 3 on Ray nodes of this machine (5 minutes)
	$(RUN) benchmarks/cluster.py

bench-serve: $(VENV)/.bench $(VENV)/azure/.setup  ## Measure the service under load beside other servers (20 minutes); writes BENCHMARKS.md
	$(RUN) benchmarks/run.py serve

clean:  ## Remove the environment and caches (never images or results)
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache *.egg-info
