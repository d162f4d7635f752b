# shellcheck shell=bash
# libvirt, its network and its pool: made to run where they do not, with a note of what was made.
# Sourced, never run.

LIBVIRT_URI=qemu:///system
POOL_DIR=/var/lib/libvirt/images

virsh_() {
    virsh --quiet --connect "$LIBVIRT_URI" "$@"
}

libvirt_answers() {
    timeout 20 virsh --quiet --connect "$LIBVIRT_URI" version >/dev/null 2>&1
}

# note_made FILE KIND NAME: remembers that we made something, before it is made. FILE empty: not
# remembered. A note of a thing that was never made does no harm; a thing without a note stays.
note_made() {
    [ -n "$1" ] || return 0
    grep -qxF "$2 $3" "$1" 2>/dev/null || printf '%s %s\n' "$2" "$3" >>"$1"
}

# start_libvirt [MADE_FILE]: daemons, the network `default` and the pool `default`.
start_libvirt() {
    local made=${1:-}
    start_libvirt_daemons "$made"
    ensure_network "$made"
    ensure_pool "$made"
}

start_libvirt_daemons() {
    libvirt_answers && return 0
    if [ -d /run/systemd/system ]; then
        say "starting libvirt (systemd)"
        systemctl start virtlogd.socket libvirtd.socket || die "systemd could not start libvirt"
    else
        say "starting libvirt (no systemd here)"
        # virtlogd first: QEMU's console logs go through it.
        start_daemon "$1" virtlogd
        start_daemon "$1" libvirtd
    fi
    wait_until 60 "libvirt to answer at $LIBVIRT_URI" libvirt_answers ||
        die "libvirt does not answer at $LIBVIRT_URI; what it says: $(virsh_ version 2>&1 | tail -n 1)"
}

# start_daemon MADE_FILE NAME
start_daemon() {
    if [ -n "$(daemon_pid "$2")" ]; then
        return
    fi
    note_made "$1" daemon "$2"
    # A client of another session may be starting it this moment: then ours ends, and all is well.
    # It must not hold the lock of a script (descriptor 9) for as long as it lives.
    "$2" -d 9>&- || [ -n "$(daemon_pid "$2")" ] || die "$2 could not be started"
}

# daemon_pid NAME: the process that its pid file names, when it is alive and is that daemon.
daemon_pid() {
    local pid
    pid=$(cat "/run/$1.pid" 2>/dev/null) || return 0
    is_alive_as "$1" "$pid" && printf '%s\n' "$pid"
    return 0
}

# Here and elsewhere grep reads to the end: with -q it would leave at the first match, the program before
# it would die of the broken pipe, and `pipefail` would say that nothing matched.
ensure_network() {
    local xml=/usr/share/libvirt/networks/default.xml
    if ! virsh_ net-info default >/dev/null 2>&1; then
        [ -e "$xml" ] || xml=/etc/libvirt/qemu/networks/default.xml
        [ -e "$xml" ] || die "libvirt has no network 'default' and no template for it"
        note_made "$1" network-definition default
        virsh_ net-define "$xml" >/dev/null
    fi
    if ! virsh_ net-list --name | grep -xF default >/dev/null; then
        note_made "$1" network-start default
        virsh_ net-start default >/dev/null || die "the network 'default' could not be started"
    fi
}

ensure_pool() {
    if ! virsh_ pool-info default >/dev/null 2>&1; then
        note_made "$1" pool-definition default
        virsh_ pool-define-as default dir --target "$POOL_DIR" >/dev/null
        virsh_ pool-autostart default >/dev/null
    fi
    if ! virsh_ pool-list --name | grep -xF default >/dev/null; then
        note_made "$1" pool-start default
        install -d -m 0711 -- "$POOL_DIR"
        virsh_ pool-start default >/dev/null || die "the pool 'default' could not be started"
    fi
}

# was_made FILE KIND NAME: whether we noted it.
was_made() {
    grep -qxF "$2 $3" "$1" 2>/dev/null
}

# unmake_libvirt MADE_FILE: takes back what start_libvirt noted, last first, and forgets it. What
# other VMs of this host may need stays, and stays noted.
unmake_libvirt() {
    local made=$1 kind name kept=''
    grep -qvE '^(directory|state|base|image) ' "$made" 2>/dev/null || return 0
    if ! libvirt_answers; then
        warn "libvirt does not answer; what was started there cannot be taken back"
        return 0
    fi
    if [ -n "$(virsh_ list --all --name | tr -d '\n')" ]; then
        warn "this host has other VMs: libvirt, its network and its pool are left as they are"
        return 0
    fi
    while read -r kind name; do
        # Files are unmade elsewhere.
        unmake_one "$kind" "$name" || kept="$kind $name"$'\n'$kept
    done < <(tac -- "$made")
    printf '%s' "$kept" >"$made.part"
    mv -f -- "$made.part" "$made"
}

# unmake_one KIND NAME: fails when it must stay noted.
unmake_one() {
    case $1 in
        network-start) virsh_ net-destroy "$2" >/dev/null ;;
        network-definition) virsh_ net-undefine "$2" >/dev/null ;;
        pool-start) virsh_ pool-destroy "$2" >/dev/null ;;
        # The definition only: its directory's files are not ours to delete.
        pool-definition) virsh_ pool-undefine "$2" >/dev/null ;;
        daemon) stop_libvirt_daemon "$2" ;;
        *) return 1 ;;
    esac
}

stop_libvirt_daemon() {
    local pid
    pid=$(daemon_pid "$1")
    [ -z "$pid" ] || kill "$pid"
}

# qemu_user: the user that QEMU runs as here; its directories must be open to it.
qemu_user() {
    local user
    user=$(sed -n 's/^[[:space:]]*user[[:space:]]*=[[:space:]]*"\{0,1\}+\{0,1\}\([^"]*\)"\{0,1\}[[:space:]]*$/\1/p' \
        /etc/libvirt/qemu.conf 2>/dev/null | tail -n 1)
    for user in "$user" libvirt-qemu qemu root; do
        if [ -n "$user" ] && id -u "$user" >/dev/null 2>&1; then
            printf '%s\n' "$user"
            return
        fi
    done
}

# mend_tpm_authority DIR: every new TPM's certificates are signed in there, by a program that
# libvirt starts as the user who owns the directory. Files that are another's, after a restore without
# owners or a TPM that root made by hand, stop each VM that has a TPM from starting.
mend_tpm_authority() {
    local dir=$1 owner
    [ -d "$dir" ] || return 0
    owner=$(stat -c %U -- "$dir")
    [ -n "$(find "$dir" -mindepth 1 -maxdepth 1 -type f ! -user "$owner" -print -quit)" ] || return 0
    warn "the files in $dir are not $owner's; they are given back"
    find "$dir" -mindepth 1 -maxdepth 1 -type f ! -user "$owner" -exec chown -h -- "$owner" {} +
}
