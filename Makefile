# saferule without a ROS installation: `make demo` and `make test` set up what they need in .venv.
# On a robot with ROS 2 this file is not used: `colcon build`, then `ros2 launch saferule saferule.launch.py`.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

ROBOT ?= ball
SEED ?= 0
ARGS ?=
CMAKE ?= cmake
# The ROS and PyBullet wheels that are pinned here are for this Python.
PYTHON_VERSION := 3.11
PYTHON ?= $(shell for python in python$(PYTHON_VERSION) python3 python; do \
	"$$python" -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != "$(PYTHON_VERSION)")' 2>/dev/null \
	&& echo "$$python" && break; done)

VENV := .venv
BIN := $(VENV)/bin
BUILD := $(VENV)/build
PACKAGES := $(VENV)/packages.stamp
PACKAGE := $(VENV)/saferule.stamp
FILES := $(VENV)/files.txt
SOAK_FIGURES := benchmarks/results/faults.jsonl
GENERATOR = $(if $(wildcard $(BUILD)/CMakeCache.txt),,$(if $(shell command -v ninja),-G Ninja))
INTERFACES := $(wildcard msg/*.msg srv/*.srv action/*.action)

# Nothing of a ROS installation that happens to be sourced may leak into .venv, and nothing here leaves this machine.
unexport PYTHONPATH PYTHONHOME AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH ROS_DISTRO RMW_IMPLEMENTATION
ifneq ($(AMENT_PREFIX_PATH),)
unexport LD_LIBRARY_PATH
endif
export ROS_AUTOMATIC_DISCOVERY_RANGE := LOCALHOST
export ROS_LOG_DIR ?= $(CURDIR)/$(VENV)/ros_log
ifeq ($(strip $(HOME)),)
export HOME := $(CURDIR)/$(VENV)/home
endif

.PHONY: help setup demo test soak lint clean check-tools FORCE

help:
	@echo "make demo [ROBOT=ball|car] [SEED=0]   a simulated robot misbehaves and is repaired while it drives"
	@echo "make test                             lint and all tests"
	@echo "make soak                             the fault tests in their long form, with their figures (about half an hour)"
	@echo "make lint                             style only"
	@echo "make setup                            what the others do first: .venv with pinned packages, saferule built into it"
	@echo "make clean                            removes .venv and everything that was built"

setup: $(PACKAGE)

demo: $(PACKAGE)
	@$(BIN)/saferule demo --robot $(ROBOT) --seed $(SEED) $(ARGS)

# Tests in which time counts run alone; the others share the cores, the longest files first (test/conftest.py).
test: lint $(PACKAGE)
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not timed" $(ARGS)
	@$(BIN)/python -m pytest -q -m timed $(ARGS)

# Kills, frozen nodes, broken bundles, full disks, jumping clocks and swaps, each some hundred times; alone, as above.
soak: $(PACKAGE)
	@rm -f $(SOAK_FIGURES)
	@SAFERULE_SOAK=1 SAFERULE_KILLS=200 SAFERULE_FAULT_FIGURES=$(SOAK_FIGURES) $(BIN)/python -m pytest -q \
	  -o timeout=3600 test/faults test/test_store_crashes.py $(ARGS) \
	  && status=0 || status=$$?; $(BIN)/python test/faults/figures.py $(SOAK_FIGURES); exit $$status

lint: $(PACKAGES)
	@$(BIN)/ruff check .

clean:
	rm -rf $(VENV) build install log .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

check-tools:
	@[ -n "$(PYTHON)" ] || { echo "saferule needs Python $(PYTHON_VERSION) here, and neither python$(PYTHON_VERSION) nor" \
	  "python3 is one. Install it, or name it: make PYTHON=/path/to/python$(PYTHON_VERSION)" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != "$(PYTHON_VERSION)")' 2>/dev/null || { echo \
	  "saferule needs Python $(PYTHON_VERSION) here, and $(PYTHON) is $$("$(PYTHON)" --version 2>/dev/null || echo missing)." >&2; \
	  exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo \
	  "$(PYTHON) has no venv module. Install it (Debian, Ubuntu: apt install python$(PYTHON_VERSION)-venv)." >&2; exit 1; }
	@header=$$("$(PYTHON)" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h; [ -f "$$header" ] || { echo \
	  "$(PYTHON) has no headers ($$header). Install them (Debian, Ubuntu: apt install python$(PYTHON_VERSION)-dev)." >&2; exit 1; }
	@for tool in "$${CC:-cc}" "$${CXX:-c++}" "$(CMAKE)"; do command -v "$$tool" >/dev/null || { echo \
	  "saferule needs '$$tool' to build its messages. Install it (Debian, Ubuntu: apt install build-essential cmake)." >&2; \
	  exit 1; }; done

$(PACKAGES): requirements.txt constraints.txt requirements-safety-gymnasium.txt
	@$(MAKE) --no-print-directory check-tools
	@echo "[1/3] making $(VENV) with $$("$(PYTHON)" --version) (5 s)"
	@"$(PYTHON)" -m venv $(VENV)
	@mkdir -p $(VENV)/home
	@echo "[2/3] installing the packages of requirements.txt (1 to 5 min the first time)"
	@{ $(BIN)/python -m pip install -qq --no-compile --disable-pip-version-check --no-input -r requirements.txt -c constraints.txt \
	  && $(BIN)/python -m pip install -qq --no-compile --disable-pip-version-check --no-input --no-deps \
	    -r requirements-safety-gymnasium.txt; } || { \
	  echo "The packages could not be installed; see above. With the network back, the same command goes on." >&2; exit 1; }
	@touch $@

# Edited Python, launch and config files need no new build, they are symbolic links; added and removed ones do.
$(FILES): FORCE
	@mkdir -p $(VENV)
	@find saferule_core saferule_ros launch config -type f -not -name '*.pyc' | LC_ALL=C sort > $@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

$(PACKAGE): $(PACKAGES) $(FILES) $(INTERFACES) CMakeLists.txt package.xml setup.cfg cmake/ros_wheels.cmake
	@echo "[3/3] building the messages and installing saferule into $(VENV) (25 s to 1 min the first time)"
	@rm -rf $(VENV)/lib/python$(PYTHON_VERSION)/site-packages/saferule_{core,ros} $(VENV)/share/saferule/{launch,config}
	@{ $(CMAKE) -S . -B $(BUILD) $(GENERATOR) -Wno-dev -DCMAKE_INSTALL_PREFIX=$(CURDIR)/$(VENV) -DCMAKE_PREFIX_PATH=$(CURDIR)/$(VENV) \
	    -DPython3_EXECUTABLE=$(CURDIR)/$(BIN)/python3 \
	    -DAMENT_CMAKE_SYMLINK_INSTALL=ON -DBUILD_TESTING=OFF -DCMAKE_BUILD_TYPE=Release \
	  && $(CMAKE) --build $(BUILD) --target install --parallel 2; } > $(VENV)/build.log 2>&1 || { \
	  tail -n 40 $(VENV)/build.log >&2; echo "The build failed; the whole log is $(VENV)/build.log" >&2; exit 1; }
	@touch $@

FORCE:
