# shellcheck shell=bash
# What the tests ask whether an installer would take a file: the readers of those files themselves,
# in a directory of their own. Nothing of it is installed on the host: cloud-init would take the
# host for a guest at its next boot. Sourced, never run.

# shellcheck source=scripts/lib/debian.sh
. "$LIB/debian.sh"

# What a guest of Debian has, cloud-init included: enough to run it, and our scripts, in a chroot.
VALIDATOR_GUEST=cloud-init,dash,coreutils,libc-bin,base-passwd,sed,grep
# The first release of Debian whose cloud-init brings a schema of network-config; only that is read. The
# schema lets unknown keys of a card pass, netplan does not; base-files has the links that it runs by.
VALIDATOR_LATER=trixie
VALIDATOR_LATER_GUEST=cloud-init,netplan.io,base-files

# need_validators DIR: lays them out in DIR. Does nothing, and asks no server, when all is there.
need_validators() {
    local dir=$1
    install -d -m 0755 -- "$dir"
    need_python_validators "$dir"
    need_guest_validators "$dir/guest" "$GUEST_SUITE" "$VALIDATOR_GUEST"
    need_guest_validators "$dir/later" "$VALIDATOR_LATER" "$VALIDATOR_LATER_GUEST"
}

# need_python_validators DIR: DIR/venv, with what validators.txt says.
need_python_validators() {
    local venv=$1/venv wanted=$LIB/validators.txt
    cmp -s -- "$wanted" "$venv/made-from" && return
    say "fetching the validators of installers' files (PyPI)"
    rm -rf --one-file-system -- "$venv"
    python3 -m venv -- "$venv" >&2 || die "python3 could not make $venv; what it said is above"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$wanted" >&2 ||
        die "pip could not install what $wanted names; what it said is above"
    cp -- "$wanted" "$venv/made-from"
}

# need_guest_validators GUEST SUITE PACKAGES: those of the suite in the directory GUEST, unpacked, not
# installed.
need_guest_validators() {
    local guest=$1 packages=$3 made
    local GUEST_SUITE=$2
    [ "$(cat -- "$guest/made-from" 2>/dev/null)" = "$GUEST_SUITE $packages" ] && return
    say "unpacking cloud-init to ask it about its files ($GUEST_SUITE)"
    rm -rf --one-file-system -- "$guest"
    make_temp_dir made "$(dirname -- "$guest")"
    chmod 0755 -- "$made"
    bootstrap "$made/guest" --variant=extract --include="$packages"
    install -d -m 1777 -- "$made/guest/tmp"
    printf '%s\n' "$GUEST_SUITE $packages" >"$made/guest/made-from"
    mv -- "$made/guest" "$guest"
}
