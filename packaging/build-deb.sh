#!/usr/bin/env bash
# Makes a Debian package of target/dist/udispatch (`cargo build --profile dist` comes first) and prints its path. Manual pages and
# completions are what that program says of its own command line. Arguments go to `cargo deb`, such as --fast.
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

# Without xz, which needs a C library: gzip is what every dpkg reads.
if ! command -v cargo-deb > /dev/null; then
    cargo install cargo-deb --version '^3' --locked --quiet --no-default-features --features gzip --root target/tools >&2
    export PATH="$PWD/target/tools/bin:$PATH"
fi
cargo deb --quiet --no-build --profile dist "$@" --output "$made/udispatch.deb" >&2
echo "$made/udispatch.deb"
