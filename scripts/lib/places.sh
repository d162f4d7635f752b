# shellcheck shell=bash
# Where `scripts/up` keeps things, and the configuration that tells the daemon. Sourced, never run.

# What belongs to this checkout: configuration, log, token, and the note of what was made.
UP_DIR=$REPO/.up
CONFIG=$UP_DIR/infinibay.toml
MADE=$UP_DIR/made
# QEMU runs as a user of its own and must reach images, seeds and sockets: a checkout in
# somebody's home directory would not do.
STATE_DIR=$(absolute "${INFINIBAY_STATE_DIR:-/var/lib/infinibay}")
SOCKET_DIR=$(absolute "${INFINIBAY_SOCKET_DIR:-/run/infinibay/agents}")
API_PORT=${PORT:-4000}

# places_of_up: where the last `up` put things, whatever this shell's environment says now.
places_of_up() {
    local state port
    state=$(noted state | tail -n 1)
    STATE_DIR=${state:-$STATE_DIR}
    port=$(sed -n 's/^port = \([0-9]*\)$/\1/p' "$CONFIG" 2>/dev/null || true)
    API_PORT=${port:-$API_PORT}
}

# noted KIND: the names noted under that kind, one a line.
noted() {
    [ ! -e "$MADE" ] || sed -n "s/^$1 //p" "$MADE"
}

# of_daemon [ACTION…]: what a daemon keeps in its state directory. Images, the agent's files and what
# scripts/test reads installers' files with, installs from, or speaks to the API with lie there too, and are
# nobody's state.
of_daemon() {
    find "$STATE_DIR" -mindepth 1 -maxdepth 1 ! -name images ! -name base ! -name validators ! -name installers \
        ! -name clients "$@"
}

# prepare_places: the directories, open to those who need them and to nobody else.
prepare_places() {
    local before
    install -d -m 0755 -- "$UP_DIR"
    before=$(noted state | tail -n 1)
    [ "${before:-$STATE_DIR}" = "$STATE_DIR" ] ||
        die "this checkout's state is in $before; run scripts/down first, or set INFINIBAY_STATE_DIR to that"
    if ! was_made "$MADE" state "$STATE_DIR"; then
        if [ -d "$STATE_DIR" ] && of_daemon | grep . >/dev/null; then
            die "$STATE_DIR holds the state of another installation; name another directory with INFINIBAY_STATE_DIR"
        fi
        note_made "$MADE" state "$STATE_DIR"
    fi
    # Passable for QEMU's user, who is given paths below it; not readable.
    install -d -m 0711 -- "$STATE_DIR"
    # scripts/test keeps images and the agent in the same places by default; what it made is not
    # ours to remove.
    install -d -m 0755 -- "$STATE_DIR/images"
    [ -d "$STATE_DIR/base" ] || note_made "$MADE" base "$STATE_DIR/base"
    note_directory "$(dirname -- "$SOCKET_DIR")"
    note_directory "$SOCKET_DIR"
    install -d -m 0755 -- "$(dirname -- "$SOCKET_DIR")"
    # libvirt makes the sockets, as root, and hands them to QEMU: a guest that has broken out of
    # its QEMU must not be able to replace the socket of another one.
    install -d -m 0711 -- "$SOCKET_DIR"
}

# note_directory DIR: remembers a directory that was not there before us.
note_directory() {
    [ -d "$1" ] || note_made "$MADE" directory "$1"
}

# write_config: the daemon's configuration, whole or not at all.
write_config() {
    {
        printf '# Written by scripts/up; changed again at its next run.\n'
        printf '[paths]\nstate_dir = %s\nbase_dir = %s\nimages_dir = %s\n' \
            "$(toml_string "$STATE_DIR")" "$(toml_string "$STATE_DIR/base")" \
            "$(toml_string "$STATE_DIR/images")"
        printf '\n[api]\nhost = "127.0.0.1"\nport = %d\n' "$API_PORT"
        printf '\n[agents]\nsocket_dir = %s\nsocket_owners = %s\n' \
            "$(toml_string "$SOCKET_DIR")" "$(toml_string "$(qemu_user)")"
    } >"$CONFIG.part"
    mv -f -- "$CONFIG.part" "$CONFIG"
}

# one_at_a_time: `up` and `down` of one checkout exclude each other. The lock is descriptor 9.
one_at_a_time() {
    install -d -m 0755 -- "$UP_DIR"
    exec 9>"$UP_DIR/lock"
    flock --nonblock 9 || die "another scripts/up or scripts/down of this checkout is at work"
}

# unmake_places keep|remove: removes what `up` made in the file system; says what to do with the
# guest images. Images that are kept stay noted, for a `down --images` of another day.
unmake_places() {
    local path
    if was_made "$MADE" state "$STATE_DIR" && [ -d "$STATE_DIR" ]; then
        of_daemon -exec rm -rf --one-file-system -- '{}' +
    fi
    while IFS= read -r path; do
        rm -rf --one-file-system -- "$path"
    done < <(noted base)
    [ "$1" = keep ] || remove_images
    while IFS= read -r path; do
        remove_if_empty "$path"
    done < <(noted directory | tac)
    if was_made "$MADE" state "$STATE_DIR"; then
        remove_if_empty "$STATE_DIR/images"
        remove_if_empty "$STATE_DIR"
    fi
    find "$UP_DIR" -mindepth 1 -maxdepth 1 ! -name made ! -name lock \
        -exec rm -rf --one-file-system -- '{}' +
    # What is still noted waits for the next `down`.
    [ ! -e "$MADE" ] || sed -i '/^\(directory\|state\|base\) /d' "$MADE"
    [ -s "$MADE" ] || rm -rf --one-file-system -- "$UP_DIR"
}

# remove_images: those that `up` built. Others, of scripts/test or of people, are not ours.
remove_images() {
    local image library
    while IFS= read -r image; do
        rm -rf --one-file-system -- "$image"
        library=${image%/*}
        # The lock of builds goes when there is nothing left that it guards.
        [ ! -d "$library" ] || find "$library" -mindepth 1 ! -name .build.lock | grep . >/dev/null ||
            rm -f -- "$library/.build.lock"
        remove_if_empty "$library"
        remove_if_empty "${library%/*}"
    done < <(noted image)
    [ ! -e "$MADE" ] || sed -i '/^image /d' "$MADE"
}

remove_if_empty() {
    [ ! -d "$1" ] || rmdir --ignore-fail-on-non-empty -- "$1"
}
