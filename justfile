# The daily commands. Each recipe is one command. CONTRIBUTING.md shows most of them, so just is optional.

_default:
    @just --list

# The quickest check while you edit
check:
    cargo check --all-targets

# What every commit has to pass: formatting and lints
lint:
    .ci/run format lints

# Tests whose name contains NAME, with their output; all tests without a name
test *NAME:
    cargo test {{ if NAME == "" { "" } else { NAME + " -- --nocapture" } }}

# COUNT random scenarios of `simulation` and of `sessions`; `takeover_protocol` runs 20,000 in every test run
seeds COUNT="1000":
    UDISPATCH_SEEDS={{COUNT}} cargo test --release --test simulation --test sessions

# Benchmarks against forwarders written by hand and other proxies; three minutes
bench:
    cargo bench --bench forward -- --quick

# Each fuzz target, or the given ones, for SECONDS
fuzz SECONDS="60" *TARGETS:
    .ci/fuzz --seconds {{SECONDS}} {{TARGETS}}

# Covered lines of each room
coverage *ARGUMENTS:
    .ci/coverage {{ARGUMENTS}}

# The documentation of the library
docs:
    cargo doc --no-deps --open

# Everything that a change has to pass, or the given steps
ci *STEPS:
    .ci/run {{STEPS}}

# Long runs: cargo-deny, seeds, fuzzing, soak, Miri, coverage; or the given steps
nightly *STEPS:
    .ci/nightly {{STEPS}}
