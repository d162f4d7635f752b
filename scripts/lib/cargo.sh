# shellcheck shell=bash
# Builds with cargo. Sourced, never run.

# cargo_build ARG…: exactly the locked dependencies; with progress where a person watches.
cargo_build() {
    local quiet=()
    [ -t 2 ] || quiet=(--quiet)
    (cd -- "$REPO" && cargo build --locked "${quiet[@]}" "$@") ||
        die "cargo build $* failed; what it said is above"
}
