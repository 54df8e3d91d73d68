# One verb for each thing people do. `make` alone lists them.
SHELL := /bin/bash
.DELETE_ON_ERROR:
# The fuzz targets are a workspace of their own; one folder for both, so that libraries are built once.
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
.PHONY: help quickstart cluster test build rules check unit fuzz-short e2e soak fuzz bench scale deb clean

help:
	@echo "make quickstart   build Keystead, start it with an AWS KMS emulator, enable AWS KMS for an SVM, stay up until Ctrl-C"
	@echo "make cluster      the same with three nodes on an etcd of three members (the program etcd must be there: Debian's etcd-server)"
	@echo "make test         everything that CI runs: formatting, lints, unit, property, integration and end-to-end tests, and 30 seconds of fuzzing"
	@echo "make rules        formatting, and the rules for dependencies and for what is committed"
	@echo "make check        these, and lints"
	@echo "make unit         the Rust tests"
	@echo "make e2e          the end-to-end tests with the real clients and emulators"
	@echo "make soak         what takes long: many more crashes, races and malformed requests; 100,000 keys that move while clients read; faults of nodes, etcd, networks, clocks and disks"
	@echo "make fuzz         fuzzing with libFuzzer: SECONDS=600 for each target, both at the same time"
	@echo "make bench        performance, as ratios"
	@echo "make deb          a Debian package of the program, with its unit for systemd, manual pages and completions: target/debian"
	@echo "make scale        what one of each thing costs, measured anew into docs/scale.json, and what a large cluster comes to"

quickstart:
	@command -v cargo >/dev/null || { echo "quickstart: cargo is missing; install Rust 1.95 or later" >&2; exit 1; }
	@echo "quickstart: building Keystead (the first time takes some minutes)"
	cargo build --locked -p keystead
	scripts/test-env tests
	scripts/test-env ministack
	@exec .venv/bin/python scripts/quickstart $(ARGS)

cluster:
	@command -v cargo >/dev/null || { echo "cluster: cargo is missing; install Rust 1.95 or later" >&2; exit 1; }
	@echo "cluster: building Keystead (the first time takes some minutes)"
	cargo build --locked -p keystead
	scripts/test-env tests
	scripts/test-env ministack
	scripts/test-env --etcd
	@exec .venv/bin/python scripts/quickstart --cluster $(ARGS)

# The programs that the end-to-end tests run, as the Rust tests have built them: built alone, libraries have other features, and all is built again.
build:
	cargo test --locked --workspace --no-run

test:
	scripts/test

rules:
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	scripts/check-dependencies
	scripts/check-tree

check: rules
	cargo clippy --locked --workspace --all-targets -- -D warnings
	scripts/test-env --c++
	cargo clippy --locked --manifest-path fuzz/Cargo.toml --target-dir $(TARGET) --all-targets -- -D warnings

unit:
	scripts/unit

# After the tests, so that the libraries that it shares with them are there.
fuzz-short:
	scripts/fuzz 30

e2e: build
	scripts/test-env
	.venv/bin/python -m pytest -q -n $$(($$(nproc) + 1)) --dist loadfile tests/e2e

soak: build
	cargo build --locked -p keystead --release --examples
	SOAK=1 cargo test --locked -p keystead --release --test node -- --nocapture crash:: crash_keys:: hostile:: hostile_kmip:: aws_calls:: migrate_load:: logins:: cluster:: store_copy:: backup:: metrics::a_scrape
	SOAK=1 cargo test --locked -p keystead --release --test node -- --nocapture --ignored cluster_nodes::
	scripts/test-env --debian
	SOAK=1 cargo test --locked -p keystead --release --test node -- --nocapture --test-threads=1 cluster_faults:: cluster_networks:: cluster_jobs::

fuzz: SECONDS := 600
fuzz:
	scripts/fuzz $(SECONDS)

# One after the other: each has the machine for itself.
bench:
	scripts/test-env tests
	scripts/test-env --etcd
	cargo bench --locked -p keystead --bench budgets

scale:
	scripts/test-env --etcd
	OUT=$(CURDIR)/docs/scale.json cargo bench --locked -p keystead --bench budgets -- scale
	scripts/scale

deb:
	@scripts/deb

clean:
	cargo clean
	rm -rf .venv .venv-ministack .venv-ontap-9.16 .cache/debian .cache/debian.stamp quickstart-data cluster-data
