# shellcheck shell=bash
# What every script needs: words for people, a clean end, and temporary places that go away.
# Sourced, never run.

# With it, `cd` may go elsewhere and say so on standard output.
unset CDPATH
REPO=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
# shellcheck disable=SC2034 # for those who source this
LIB=$REPO/scripts/lib
SECONDS_AT_START=$SECONDS

# say WORDS…: one line of progress, with the seconds since the script began.
say() {
    printf '[%4ds] %s\n' "$((SECONDS - SECONDS_AT_START))" "$*" >&2
}

# warn WORDS…: something a person should know that does not stop us.
warn() {
    printf 'warning: %s\n' "$*" >&2
}

# die WORDS…: says why, and ends with 1.
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# help_of SCRIPT: prints the script's own head comment, which is its manual.
help_of() {
    awk 'NR == 1 { next } /^#/ { sub(/^# ?/, ""); print; next } { exit }' "$1"
}

# need_root: most of what we do (packages, QEMU's directories, loop-free disk images) is root's.
need_root() {
    [ "$(id -u)" -eq 0 ] && return 0
    # shellcheck disable=SC2016 # the text is for the person to type
    die "$(basename -- "$0") must run as root; try: sudo --preserve-env=HOME env \"PATH=\$PATH\" $0"
}

# need_commands NAME…: names all that are missing, not just the first.
need_commands() {
    local missing=() name
    for name in "$@"; do
        command -v "$name" >/dev/null || missing+=("$name")
    done
    [ ${#missing[@]} -eq 0 ] || die "these commands are missing: ${missing[*]}"
}

# absolute PATH: PATH from the root, whether it exists or not; symbolic links stay.
absolute() {
    realpath --canonicalize-missing --no-symlinks -- "$1"
}

CLEANUPS=()

# on_exit COMMAND ARG…: run at the end, whatever the end; last registered, first run.
on_exit() {
    local quoted
    printf -v quoted '%q ' "$@"
    CLEANUPS+=("$quoted")
    trap run_cleanups EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

run_cleanups() {
    local status=$? i
    set +e
    for ((i = ${#CLEANUPS[@]} - 1; i >= 0; i--)); do
        eval "${CLEANUPS[i]}"
    done
    exit "$status"
}

# make_temp_dir VARIABLE [PARENT]: a directory that is removed at the end.
make_temp_dir() {
    local -n made_dir=$1
    made_dir=$(mktemp -d -- "${2:-${TMPDIR:-/tmp}}/.infinibay.XXXXXXXX")
    on_exit rm -rf --one-file-system -- "$made_dir"
}

# toml_string TEXT: TEXT as a TOML basic string (JSON's escapes are a subset of TOML's).
toml_string() {
    case $1 in
        *[[:cntrl:]]*) die "a control character in a configuration value: $(printf '%q' "$1")" ;;
    esac
    jq -rn --arg text "$1" '$text | @json'
}

# is_alive_as NAME PID: whether that process runs and is called so. One that has ended and waits
# for its parent to notice has no executable any more, though it still has a name.
is_alive_as() {
    [ "$(cat "/proc/$2/comm" 2>/dev/null)" = "$1" ] && readlink "/proc/$2/exe" >/dev/null
}

# wait_until SECONDS WHAT COMMAND ARG…: asks twice a second; false after the deadline.
wait_until() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            warn "gave up waiting for $what"
            return 1
        fi
        sleep 0.5
    done
}
