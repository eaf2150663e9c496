#!/usr/bin/env bash
# Makes a Debian package of target/dist/udispatch and prints its path. `cargo build --profile dist` has to run first. That
# program generates the manual pages and completions of its command line. Arguments, such as --fast, go to `cargo deb`.
set -euo pipefail
cd "$(dirname "$0")/.."

program=target/dist/udispatch
made=target/package
rm -rf "$made"
mkdir -p "$made/man"
"$program" man --dir "$made/man"
"$program" completions bash > "$made/udispatch.bash"
"$program" completions fish > "$made/udispatch.fish"
"$program" completions zsh > "$made/_udispatch"

# gzip, which every dpkg reads, and not xz, which needs a C library.
if ! command -v cargo-deb > /dev/null; then
    cargo install cargo-deb --version '^3' --locked --quiet --no-default-features --features gzip --root target/tools >&2
    export PATH="$PWD/target/tools/bin:$PATH"
fi
cargo deb --quiet --no-build --profile dist "$@" --output "$made/udispatch.deb" >&2
echo "$made/udispatch.deb"
