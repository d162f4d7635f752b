# shellcheck shell=bash
# Builds with cargo. Sourced, never run.

# Builds run in the checkout, and that is what a relative name is relative to.
TARGET_DIR=$REPO/target
case ${CARGO_TARGET_DIR:-} in
    '') ;;
    /*) TARGET_DIR=$CARGO_TARGET_DIR ;;
    *) TARGET_DIR=$REPO/$CARGO_TARGET_DIR ;;
esac

# cargo_build ARG…: exactly the locked dependencies; with progress where a person watches.
cargo_build() {
    local quiet=()
    [ -t 2 ] || quiet=(--quiet)
    (cd -- "$REPO" && cargo build --locked --target-dir "$TARGET_DIR" "${quiet[@]}" "$@") ||
        die "cargo build $* failed; what it said is above"
}
