# shellcheck shell=bash
# The daemon of `scripts/up`: its build, its administrator, its life. Sourced, never run.

# shellcheck source=scripts/lib/cargo.sh
. "$LIB/cargo.sh"
# shellcheck source=scripts/lib/places.sh
. "$LIB/places.sh"
ADMIN='admin'

# build_daemon VARIABLE [release]: builds the daemon and puts the binary's path into VARIABLE.
build_daemon() {
    local -n daemon_path=$1
    local profile=debug options=()
    if [ "${2:-}" = release ]; then
        profile=release
        options=(--release)
    fi
    say "building the daemon ($profile)"
    cargo_build --bin infinibayd "${options[@]}"
    # shellcheck disable=SC2034 # the caller's variable
    daemon_path=$TARGET_DIR/$profile/infinibayd
}

# build_cli VARIABLE [release]: builds the command line for people and puts its path into VARIABLE.
build_cli() {
    local -n cli_path=$1
    local profile=debug options=()
    if [ "${2:-}" = release ]; then
        profile=release
        options=(--release)
    fi
    say "building the command line ($profile)"
    cargo_build -p infinibay-cli "${options[@]}"
    # shellcheck disable=SC2034 # the caller's variable
    cli_path=$TARGET_DIR/$profile/infinibay
}

# find_daemon VARIABLE: an infinibayd that is there already, else one is built.
find_daemon() {
    local -n found_path=$1
    local candidate
    for candidate in "$(command -v infinibayd || true)" "$TARGET_DIR"/{release,debug}/infinibayd; do
        if [ -n "$candidate" ] && [ -x "$candidate" ]; then
            # shellcheck disable=SC2034 # the caller's variable
            found_path=$candidate
            return
        fi
    done
    need_rust
    build_daemon "$1"
}

# Before a command: the daemon on our configuration alone, whatever this shell has set. Not a
# function: in the background that would be one process more, whose id is not the daemon's.
CLEAN_ENV=(env -u DATABASE_URL -u APP_HOST -u PORT -u INFINIBAY_BASE_DIR -u INFINIBAY_CONFIG)
for variable in "${!INFINIBAY__@}"; do
    CLEAN_ENV+=(-u "$variable")
done

# daemon_process: the daemon's process id, when it runs; nothing otherwise.
daemon_process() {
    local pid
    pid=$(cat -- "$UP_DIR/infinibayd.pid" 2>/dev/null) || return 0
    is_alive_as infinibayd "$pid" && printf '%s\n' "$pid"
    return 0
}

healthy() {
    curl --silent --fail --noproxy '*' --max-time 5 --output /dev/null "http://127.0.0.1:$API_PORT/healthz"
}

# daemon_is_current BINARY: it runs, it is this build, with this configuration, and it is well.
daemon_is_current() {
    local pid
    pid=$(daemon_process)
    [ -n "$pid" ] || return 1
    [ "$(stat -Lc %d:%i -- "/proc/$pid/exe")" = "$(stat -Lc %d:%i -- "$1")" ] || return 1
    [ "$(cat -- "$UP_DIR/running-config" 2>/dev/null)" = "$(recipe_hash "$CONFIG")" ] || return 1
    healthy
}

# start_daemon_process BINARY: starts it and waits until it says that it is well.
start_daemon_process() {
    local log=$UP_DIR/infinibayd.log pid
    say "starting the daemon; its log is $log"
    # A session of its own, so that it outlives this script and its terminal. The lock of this
    # script (descriptor 9) must not live on in it.
    "${CLEAN_ENV[@]}" setsid "$1" serve --config "$CONFIG" >>"$log" 2>&1 </dev/null 9>&- &
    pid=$!
    printf '%s\n' "$pid" >"$UP_DIR/infinibayd.pid"
    recipe_hash "$CONFIG" >"$UP_DIR/running-config"
    wait_until 60 "the daemon's health" healthy_or_ended || true
    if ! healthy; then
        tail -n 20 -- "$log" >&2
        die "the daemon is not well; the end of its log is above"
    fi
    [ "$(daemon_process)" = "$pid" ] ||
        die "somebody else's daemon answers on port $API_PORT; choose another one with PORT=…"
}

healthy_or_ended() {
    daemon_is_gone || healthy
}

# stop_daemon_process: asks it to end, and sees that it did.
stop_daemon_process() {
    local pid
    pid=$(daemon_process)
    if [ -n "$pid" ]; then
        say "stopping the daemon ($pid)"
        kill "$pid"
        if ! wait_until 30 "the daemon to end" daemon_is_gone; then
            warn "it did not end when asked; it is ended by force"
            kill -KILL "$pid"
            wait_until 10 "the daemon to end" daemon_is_gone || return 1
        fi
    fi
    rm -f -- "$UP_DIR/infinibayd.pid" "$UP_DIR/running-config"
}

daemon_is_gone() {
    [ -z "$(daemon_process)" ]
}

# run_daemon BINARY ARG…: one of the daemon's subcommands, on our configuration.
run_daemon() {
    local binary=$1
    shift
    "${CLEAN_ENV[@]}" "$binary" "$@" --config "$CONFIG"
}

# ensure_token BINARY: an administrator and a token for them, in .up/env. The daemon must not be
# running: it holds the database.
ensure_token() {
    local token
    if ! token=$(run_daemon "$1" user token "$ADMIN" --label scripts/up 2>/dev/null); then
        run_daemon "$1" user add "$ADMIN" --admin --permission unsafe_commands >&2
        token=$(run_daemon "$1" user token "$ADMIN" --label scripts/up)
    fi
    [ -n "$token" ] || die "the daemon gave no token for $ADMIN"
    (
        umask 077
        printf 'INFINIBAY_URL=http://127.0.0.1:%s\nINFINIBAY_TOKEN=%s\n' "$API_PORT" "$token" \
            >"$UP_DIR/env.part"
    )
    mv -f -- "$UP_DIR/env.part" "$UP_DIR/env"
}

# load_env: INFINIBAY_URL and INFINIBAY_TOKEN of the last `up`; false when there are none.
load_env() {
    [ -s "$UP_DIR/env" ] || return 1
    # shellcheck source=/dev/null
    . "$UP_DIR/env"
    [ -n "${INFINIBAY_URL:-}" ] && [ -n "${INFINIBAY_TOKEN:-}" ]
}

# ensure_daemon BINARY: this build runs on this configuration, and .up/env has a token it takes.
ensure_daemon() {
    if daemon_is_current "$1" && token_works; then
        say "the daemon is running"
        return
    fi
    stop_daemon_process
    if ! load_env; then
        ensure_token "$1"
    fi
    start_daemon_process "$1"
    token_works && return
    # A token of an earlier database: the daemon must rest while a new one is made.
    [ "$API_CODE" = UNAUTHENTICATED ] || die "${API_CODE:+$API_CODE: }$API_ERROR"
    stop_daemon_process
    ensure_token "$1"
    start_daemon_process "$1"
    token_works || die "the new token is refused: $API_ERROR"
}

token_works() {
    load_env && graphql '{ __typename }'
}
