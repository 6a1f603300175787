# Everything from a bare machine: it needs Python 3.9 to 3.11 and a C++ compiler, no more.

VENV ?= .venv
SUPPORTED = -c 'import sys; sys.exit(not (3, 9) <= sys.version_info < (3, 12))'
PYTHON ?= $(shell for python in python3.11 python3.10 python3.9 python3; do \
	$$python $(SUPPORTED) 2>/dev/null && echo $$python && break; done)

# Which MXNet: the CUDA build where there is an NVIDIA driver.
DRIVER = $(shell command -v nvidia-smi || ldconfig -p 2>/dev/null | grep -o 'libcuda\.so\.1' | head -n 1)
BUILD ?= $(if $(DRIVER),cu112,cpu)
OTHER_WHEEL = $(if $(filter cpu,$(BUILD)),mxnet-cu112,mxnet)

PY = $(VENV)/bin/python
INSTALLED = $(VENV)/installed-$(BUILD)

.DEFAULT_GOAL := help
.PHONY: help demo embedded test lint format check bench lock
.DELETE_ON_ERROR:

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16
	@echo "  Settings: VENV=$(VENV) PYTHON=$(PYTHON) BUILD=$(BUILD) (cpu or cu112)"

demo: $(INSTALLED)  ## train a small network on generated streets, score it and segment images
	rm -rf demo
	$(PY) tools/make_toy_data.py --out demo/data
	$(PY) train/train_model.py --config configs/toy.cfg --data-root demo/data --out demo/run
	$(PY) tools/predict.py demo/data/leftImg8bit/val --model demo/run --out demo/predictions
	$(PY) tools/evaluate.py --dataset cityscapes --ground-truth demo/data/gtFine/val --predictions demo/predictions
	$(PY) tools/predict.py demo/data/leftImg8bit/val --out demo/embedded
	@echo "The data is in demo/data, the run in demo/run, its overlays in demo/predictions;"
	@echo "demo/embedded holds what the network in models/, trained on real streets, makes of the same."

# Both trainings go on where they were broken off; a finished one ends at once.
EMBEDDED = runs/embedded
TRAIN = $(PY) train/train_model.py --config configs/camvid.cfg --data-root "$(CAMVID)" --resume
embedded: $(INSTALLED)  ## train the network in models/ (CAMVID=DIR WEIGHTS=FILE: see models/README.md)
	$(call need, test -d "$(CAMVID)/images/train" && test -f "$(WEIGHTS)", \
	  give CAMVID=DIR with images and labels and WEIGHTS=FILE of ResNet-18: see models/README.md)
	mkdir -p $(EMBEDDED)
	test -f $(EMBEDDED)/imagenet.params || $(PY) tools/convert_weights.py pytorch "$(WEIGHTS)" \
	  --out $(EMBEDDED)/imagenet.params
	test -f $(EMBEDDED)/start.params || $(PY) tools/convert_weights.py recalibrate \
	  $(EMBEDDED)/imagenet.params --images "$(CAMVID)/images/train" --config configs/camvid.cfg \
	  --out $(EMBEDDED)/start.params
	$(TRAIN) --out $(EMBEDDED)/warm --set solver.init_from=$(EMBEDDED)/start.params \
	  --set 'solver.freeze=conv*' --set solver.learn_bn_epochs=0 --set solver.lr=0.1 --set solver.epochs=3
	$(TRAIN) --out $(EMBEDDED)/camvid --set solver.init_from=$(EMBEDDED)/warm

test: $(INSTALLED)  ## run every test, two files at a time
	$(PY) -m pytest -n 2 --dist loadfile

lint: $(INSTALLED)  ## check style and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(INSTALLED)  ## rewrite the code in the project's style
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

check: lint test  ## lint and test

bench: $(INSTALLED)  ## measure speed and memory
	for subject in data train predict evaluate crf memory; do $(PY) tools/benchmark.py $$subject || exit; done

# What holds on every supported machine: left out of each line of the lock, or none could be read.
ALWAYS = platform_machine == 'x86_64'|sys_platform == 'linux'|python_full_version < '3.12'|platform_python_implementation != 'PyPy'

lock:  ## write requirements.txt anew from setup.py (needs uv)
	uv pip compile setup.py --quiet --universal --python-version 3.9 --all-extras --no-header --no-annotate -o lock.txt
	@echo "# The tested environment: every package, for Python 3.9 to 3.11 on Linux. Install with" > requirements.txt
	@echo "#     pip install -c requirements.txt -e '.[cpu]'" >> requirements.txt
	@echo "# Written from setup.py by 'make lock'; do not edit." >> requirements.txt
	@sed -E "s/ (;|and) ($(ALWAYS))//g; s/^([^ ]+) and /\1 ; /" lock.txt >> requirements.txt
	@rm lock.txt

# $(call need,COMMAND,SENTENCE): stop with the sentence unless the command succeeds.
need = @{ $(1); } >/dev/null 2>&1 || { echo "error: $(strip $(2))" >&2; exit 2; }
HEADER = $$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h

$(INSTALLED): setup.py requirements.txt pyproject.toml
	$(call need, $(or $(PYTHON),false) $(SUPPORTED), \
	  MXNet 1.9.1 needs Python 3.9 to 3.11$(if $(PYTHON), and $(PYTHON) is not): install one \
	  (Debian: apt-get install python3.11-full python3.11-dev) or name it: make PYTHON=/path/to/python3.11)
	$(call need, $(PYTHON) -m ensurepip --version, \
	  $(PYTHON) cannot make virtual environments: install its venv package (Debian: apt-get install python3-venv))
	$(call need, test -e "$(HEADER)", \
	  $(PYTHON) has no header files to build pydensecrf with: install its dev package (Debian: apt-get install python3-dev))
	$(call need, command -v c++ || command -v g++ || command -v clang++, \
	  there is no C++ compiler to build pydensecrf with: install one (Debian: apt-get install g++))
	@echo "Installing MXNet ($(BUILD) build) and what goes with it into $(VENV); this takes a few minutes ..."
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@rm -f $(VENV)/installed-*
	@$(PY) -m pip uninstall -qq --yes $(OTHER_WHEEL)
	@$(PY) -m pip install -qq -c requirements.txt -e '.[$(BUILD),onnxruntime,openvino,serve,hub,dev]'
	@touch $@
