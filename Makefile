# Everything here installs what it needs first (see .ci/setup.py); nothing is installed twice.

SHELL := /bin/sh
# rustup's default place, for shells that were opened before Rust was installed
export PATH := $(PATH):$(HOME)/.cargo/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo test bench clean

help:
	@echo "make demo    node and bag player on this machine; results in out/demo/"
	@echo "make test    format, lints, Rust tests, Python tests against the built program"
	@echo "make bench   speed beside Hugging Face, pycocotools and a Python node; results in out/bench/"
	@echo "make setup   only install and build what the demo needs"
	@echo "make clean   remove target/, .deps/, out/ and what was assembled in models/sim/detector/"

setup:
	@python3 .ci/setup.py demo

demo:
	@python3 .ci/setup.py demo
	@"$${CARGO_TARGET_DIR:-target}/release/scenelex" demo

test:
	@python3 .ci/setup.py test
	@python3 .ci/test.py

bench:
	@python3 .ci/setup.py bench
	@.deps/venv/bin/python benches/compare.py

clean:
	rm -rf target .deps out models/sim/detector/text_encoder.onnx models/sim/detector/tokenizer.json
