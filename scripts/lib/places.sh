# shellcheck shell=bash
# Where `scripts/up` keeps things, and the configuration that tells the daemon. Sourced, never run.

# What belongs to this checkout: configuration, log, token, and the note of what was made.
UP_DIR=$REPO/.up
CONFIG=$UP_DIR/infinibay.toml
MADE=$UP_DIR/made
# QEMU runs as a user of its own and must reach images, seeds and sockets: a checkout in
# somebody's home directory would not do.
STATE_DIR=${INFINIBAY_STATE_DIR:-/var/lib/infinibay}
SOCKET_DIR=${INFINIBAY_SOCKET_DIR:-/run/infinibay/agents}
API_PORT=${PORT:-4000}

# prepare_places: the directories, open to those who need them and to nobody else.
prepare_places() {
    install -d -m 0755 -- "$UP_DIR"
    if ! was_made "$MADE" state "$STATE_DIR"; then
        if [ -d "$STATE_DIR" ] && find "$STATE_DIR" -mindepth 1 -maxdepth 1 ! -name images ! -name base |
            grep -q .; then
            die "$STATE_DIR holds the state of another installation; name another directory with INFINIBAY_STATE_DIR"
        fi
        note_made "$MADE" state "$STATE_DIR"
    fi
    # Passable for QEMU's user, who is given paths below it; not readable.
    install -d -m 0711 -- "$STATE_DIR"
    install -d -m 0755 -- "$STATE_DIR/images"
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
# guest images.
unmake_places() {
    if was_made "$MADE" state "$STATE_DIR" && [ -d "$STATE_DIR" ]; then
        find "$STATE_DIR" -mindepth 1 -maxdepth 1 ! -name images \
            -exec rm -rf --one-file-system -- '{}' +
        [ "$1" = keep ] || remove_images
        rmdir --ignore-fail-on-non-empty -- "$STATE_DIR"
    fi
    if was_made "$MADE" directory "$SOCKET_DIR" && [ -d "$SOCKET_DIR" ]; then
        rmdir --ignore-fail-on-non-empty -- "$SOCKET_DIR"
        rmdir --ignore-fail-on-non-empty -- "$(dirname -- "$SOCKET_DIR")"
    fi
    find "$UP_DIR" -mindepth 1 -maxdepth 1 ! -name made ! -name lock \
        -exec rm -rf --one-file-system -- '{}' +
    # What is still noted waits for the next `down`.
    sed -i '/^\(directory\|state\) /d' "$MADE"
    [ -s "$MADE" ] || rm -rf --one-file-system -- "$UP_DIR"
}

# remove_images: the images that we know how to build again. Others are not ours.
remove_images() {
    local name
    for name in debian-12 pocket .build.lock; do
        rm -rf --one-file-system -- "$STATE_DIR/images/$name"
    done
    [ ! -d "$STATE_DIR/images" ] || rmdir --ignore-fail-on-non-empty -- "$STATE_DIR/images"
}
