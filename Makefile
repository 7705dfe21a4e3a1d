# What to run for a change: make lint test. What to hand out: make static.

HOST := $(shell rustc --print host-tuple 2>/dev/null || rustc -vV | sed -n 's/^host: //p')
ARCH := $(firstword $(subst -, ,$(HOST)))
MUSL := $(ARCH)-unknown-linux-musl
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)

.PHONY: demo servers test bench chaos soak lint static

# Two real Vaults, and secrets that move from one to the other; under a minute after the first download.
demo:
	cargo build --locked --bin vsync
	bao=$$(tests/servers.sh bao) && examples/demo.sh "$(TARGET_DIR)/debug/vsync" "$$bao"

# Finds OpenBao, Consul, moto and hvac for the tests, or installs them into .servers/.
servers:
	@tests/servers.sh

# The static binary is under test too, hence the dependency. Tests mostly wait for servers, so more of them run at a time
# than there are cores.
test: static
	bao=$$(tests/servers.sh bao) && consul=$$(tests/servers.sh consul) && s3=$$(tests/servers.sh s3) && \
	hvac=$$(tests/servers.sh hvac) && \
	VSYNC_TEST_BAO="$$bao" VSYNC_TEST_CONSUL="$$consul" VSYNC_TEST_S3="$$s3" VSYNC_TEST_HVAC="$$hvac" \
	VSYNC_TEST_STATIC="$(CURDIR)/target/static/vsync" \
	RUST_TEST_THREADS="$${RUST_TEST_THREADS:-$$((2 * $$(nproc)))}" cargo test --locked

# How long cycles and single changes take with the static binary, and what they cost, beside the least that the same servers need for it, in about
# a quarter of an hour; then what sync info costs with no server in the way. Arguments, for the former:
# make bench BENCH_ARGS='--parts cycles,latency --secrets 1000' (or --help); a million secrets take half an hour and 10 GB:
# BENCH_ARGS='--parts large --secrets 1000000 --minutes 90'.
bench: static
	bao=$$(tests/servers.sh bao) && consul=$$(tests/servers.sh consul) && \
	VSYNC_TEST_BAO="$$bao" VSYNC_TEST_CONSUL="$$consul" \
	cargo bench --locked --bench cycles -- --binary "$(CURDIR)/target/static/vsync" $(BENCH_ARGS)
	cargo bench --locked --bench micro

# Load, faults and a monitor, for ten minutes. Arguments: make chaos CHAOS_ARGS='--seed 7 --minutes 1' (or --help).
chaos:
	bao=$$(tests/servers.sh bao) && consul=$$(tests/servers.sh consul) && \
	VSYNC_TEST_BAO="$$bao" VSYNC_TEST_CONSUL="$$consul" \
	cargo test --locked --test chaos -- run chaos $(CHAOS_ARGS)

# What an idle daemon holds on to, for an hour. Arguments: make soak SOAK_ARGS='--minutes 5' (or --help).
soak: static
	bao=$$(tests/servers.sh bao) && consul=$$(tests/servers.sh consul) && \
	VSYNC_TEST_BAO="$$bao" VSYNC_TEST_CONSUL="$$consul" \
	cargo test --locked --test chaos -- run soak --binary "$(CURDIR)/target/static/vsync" $(SOAK_ARGS)

lint:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings

# One static binary, target/static/vsync: with musl where that target and its C compiler are installed,
# and with the host's glibc linked in where they are not. A target is named even then, since the flag must
# not reach build scripts and procedural macros, which are loaded at build time.
static:
	if [ -d "$$(rustc --print target-libdir --target $(MUSL) 2>/dev/null)" ] && \
	   command -v musl-gcc >/dev/null; then \
	    target=$(MUSL); flags=; \
	else \
	    target=$(HOST); flags="-C target-feature=+crt-static"; \
	fi && \
	RUSTFLAGS="$$flags" cargo build --locked --release --bin vsync --target $$target && \
	mkdir -p target/static && \
	cp "$(TARGET_DIR)/$$target/release/vsync" target/static/vsync.new && \
	mv target/static/vsync.new target/static/vsync
