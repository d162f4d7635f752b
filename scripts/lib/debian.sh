# shellcheck shell=bash
# Where Debian packages for guests come from: the mirror this host itself uses, so that a host
# behind a private mirror builds guests that can reach theirs. Sourced, never run.

GUEST_SUITE=bookworm

# host_debian_targets FORMAT: the host's own Debian package sources, backports aside.
host_debian_targets() {
    apt-get indextargets --format "$1" 'Created-By: Packages' 'Origin: Debian' |
        sed '/-backports/d' | sort -u
}

# guest_sources: apt lines for GUEST_SUITE on standard output.
#
# INFINIBAY_DEBIAN_MIRROR names a mirror outright. On a host that is not Debian nothing is
# printed, and mmdebstrap's own default is used.
guest_sources() {
    local key=/usr/share/keyrings/debian-archive-keyring.gpg option='' uri release component
    [ -e "$key" ] && option=" [signed-by=$key]"
    if [ -n "${INFINIBAY_DEBIAN_MIRROR:-}" ]; then
        printf 'deb%s %s %s main\n' "$option" "$INFINIBAY_DEBIAN_MIRROR" "$GUEST_SUITE"
        return
    fi
    apt_is_the_hosts || return 0
    # A host of another Debian release: the same mirrors, our suite.
    # shellcheck disable=SC2016 # apt expands these
    host_debian_targets '$(REPO_URI) $(RELEASE) $(COMPONENT)' |
        while read -r uri release component; do
            [ "$component" = main ] || continue
            case $release in
                *-security) printf 'deb%s %s %s-security main\n' "$option" "$uri" "$GUEST_SUITE" ;;
                *-updates) printf 'deb%s %s %s-updates main\n' "$option" "$uri" "$GUEST_SUITE" ;;
                *-*) ;;
                *) printf 'deb%s %s %s main\n' "$option" "$uri" "$GUEST_SUITE" ;;
            esac
        done | sort -u
}

# main_mirror: the mirror that packages for guests come from.
main_mirror() {
    guest_sources | sed -n 's/^deb \(\[[^]]*\] \)\?\([^ ]*\) [a-z]* main$/\2/p' | head -n 1 |
        grep . || printf 'http://deb.debian.org/debian\n'
}

# bootstrap TARGET ARG…: mmdebstrap of GUEST_SUITE into the directory TARGET.
#
# apt reads the packages as a user of its own, so TARGET's parents must be open to all.
bootstrap() {
    local target=$1 sources log
    shift
    make_temp_dir log
    sources=$(guest_sources)
    if [ -n "$sources" ]; then
        printf '%s\n' "$sources" |
            mmdebstrap --mode=root "$@" "$GUEST_SUITE" "$target" - 2>"$log/mmdebstrap"
    else
        mmdebstrap --mode=root "$@" "$GUEST_SUITE" "$target" 2>"$log/mmdebstrap"
    fi || {
        tail -n 30 "$log/mmdebstrap" >&2
        die "mmdebstrap failed; its last lines are above"
    }
}
