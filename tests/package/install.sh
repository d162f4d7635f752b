#!/usr/bin/env bash
# Installs the package on a copy of this host, uses it, removes it and purges it.
#
#   unshare --mount --pid --fork --kill-child tests/package/install.sh DEB
#
# The copy is an overlay: what is written there is gone with the namespace, and the host is as it was.
# Each promise is a line that says OK; the first that is broken ends it with 1.
set -euo pipefail

deb=$1
scratch=$(mktemp -d)
mount --make-rprivate /
mount -t tmpfs none "$scratch"
mkdir -p "$scratch"/{up/var/lib,up/etc,work,root}
# What this host itself may have of it is not to be seen.
for hidden in var/lib/infinibay etc/infinibay; do
    mknod "$scratch/up/$hidden" c 0 0
done
mount -t overlay overlay -o "lowerdir=/,upperdir=$scratch/up,workdir=$scratch/work" "$scratch/root"
root=$scratch/root
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs run "$root/run"
mount -t tmpfs tmp "$root/tmp"
cp -- "$deb" "$root/tmp/infinibay.deb"

broken() {
    printf 'BROKEN %s\n' "$*"
    exit 1
}
# On the copy, without this shell's environment.
HOST=(env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C
    DEBIAN_FRONTEND=noninteractive chroot "$root")
# The same as the unit does it: its user, its groups, no privileges. An array, because a function in the
# background would be one process more, whose id is not the daemon's.
DAEMON=("${HOST[@]}" setpriv --reuid=infinibay --regid=infinibay --init-groups --no-new-privs --bounding-set=-all
    --inh-caps=-all env INFINIBAY__HYPERVISOR__URI=test:///default INFINIBAY__API__PORT=0 INFINIBAY__LOG__FORMAT=json)
host() {
    "${HOST[@]}" "$@"
}
daemon() {
    "${DAEMON[@]}" "$@"
}
promise() {
    local what=$1
    shift
    "$@" || broken "$what"
    printf 'OK %s\n' "$what"
}
# has_mode PATH MODE OWNER GROUP
has_mode() {
    local is
    is=$(host stat -c '%a %U %G' "$1")
    [ "$is" = "$2 $3 $4" ] || broken "$1 is $is and not $2 $3 $4"
}
is_there() {
    local path
    for path in "$@"; do
        [ -e "$root/$path" ] || [ -L "$root/$path" ] || broken "$path is not there"
    done
}
is_gone() {
    local path
    for path in "$@"; do
        if [ -e "$root/$path" ] || [ -L "$root/$path" ]; then
            broken "$path is still there"
        fi
    done
}
install_it() {
    # What it depends on is this host's to have; the tests need not all of it.
    host dpkg --install --force-depends --no-triggers /tmp/infinibay.deb >"$scratch/dpkg" 2>&1 ||
        { cat "$scratch/dpkg"; return 1; }
}

promise 'it installs' install_it
promise 'every file is at its place' is_there usr/bin/infinibayd usr/bin/infinibay \
    usr/share/infinibay/infiniservice/binaries/linux/infiniservice \
    usr/share/infinibay/infiniservice/install/install-linux.sh \
    usr/lib/systemd/system/infinibayd.service usr/share/doc/infinibay/copyright \
    usr/share/doc/infinibay/grafana/infinibay.json usr/share/doc/infinibay/OPERATIONS.md \
    usr/share/man/man1/infinibayd.1.gz usr/share/man/man1/infinibay-exec.1.gz \
    usr/share/bash-completion/completions/infinibay usr/share/zsh/vendor-completions/_infinibayd \
    usr/share/fish/vendor_completions.d/infinibay.fish \
    etc/systemd/system/multi-user.target.wants/infinibayd.service
manuals_and_completions() {
    zcat "$root/usr/share/man/man1/infinibay.1.gz" | grep -q 'infinibay\\-exec' &&
        bash -n "$root/usr/share/bash-completion/completions/infinibay" &&
        bash -n "$root/usr/share/bash-completion/completions/infinibayd"
}
promise 'manuals and completions can be read' manuals_and_completions
in_groups() {
    local groups
    groups=" $(host id -nG infinibay) "
    [[ $groups == *' libvirt '* && $groups == *' kvm '* ]] && [[ $(host id -u infinibay) -ne 0 ]]
}
promise 'its user is nobody else, and in the groups of libvirt and QEMU' in_groups
modes() {
    has_mode /var/lib/infinibay 711 infinibay infinibay
    has_mode /var/lib/infinibay/images 755 infinibay infinibay
    has_mode /run/infinibay 755 root root
    has_mode /run/infinibay/agents 771 root infinibay
    has_mode /etc/infinibay/infinibay.toml 640 root infinibay
}
promise 'its directories are open to those who need them' modes
unit() {
    local said
    said=$(host systemd-analyze verify --man=no /usr/lib/systemd/system/infinibayd.service 2>&1) || { printf '%s\n' "$said"; return 1; }
    # Of the host's other units it may have something to say.
    ! grep infinibayd <<<"$said"
}
promise 'systemd finds no fault with the unit' unit
hardened() {
    host systemd-analyze security --offline=yes --threshold=20 \
        /usr/lib/systemd/system/infinibayd.service >"$scratch/security" 2>&1 || { tail -n 3 "$scratch/security"; return 1; }
}
promise 'systemd calls it well hardened' hardened
promise 'its own configuration is right' daemon infinibayd config check

token=$(daemon sh -c 'infinibayd user add ada --admin >&2 && infinibayd user token ada' 2>"$scratch/user") ||
    { cat "$scratch/user"; broken 'a user is made'; }
"${DAEMON[@]}" infinibayd serve 2>"$scratch/log" &
pid=$!
address=''
for _ in $(seq 300); do
    address=$(sed -n 's/.*"the controller serves","address":"\([^"]*\)".*/\1/p' "$scratch/log")
    [ -z "$address" ] || break
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
done
[ -n "$address" ] || { cat "$scratch/log"; broken 'the daemon serves'; }
answers() {
    local said
    said=$(host env INFINIBAY_URL="http://$address" INFINIBAY_TOKEN="$token" infinibay list --json) && [ "$said" = '[]' ] &&
        host env INFINIBAY_URL="http://$address" INFINIBAY_TOKEN="$token" infinibay whoami | grep -q '^ada (admin)'
}
promise 'the daemon answers the command line' answers
kill -TERM "$pid"
promise 'the daemon ends when it is asked to' wait "$pid"

remove() {
    host dpkg --remove --no-triggers infinibay >"$scratch/dpkg" 2>&1 || { cat "$scratch/dpkg"; return 1; }
    is_gone usr/bin/infinibayd usr/bin/infinibay usr/share/infinibay usr/lib/systemd/system/infinibayd.service
    is_there var/lib/infinibay/infinibay.db etc/infinibay/infinibay.toml
}
promise 'removed, it leaves its state and its configuration' remove
again() {
    printf '\n# of an operator\n' >>"$root/etc/infinibay/infinibay.toml"
    install_it
    grep -q 'of an operator' "$root/etc/infinibay/infinibay.toml" && daemon infinibayd user list | grep -q ada
}
promise 'installed again, it goes on with what it left' again
purge() {
    host dpkg --purge --no-triggers infinibay >"$scratch/dpkg" 2>&1 || { cat "$scratch/dpkg"; return 1; }
    is_gone var/lib/infinibay etc/infinibay run/infinibay etc/systemd/system/multi-user.target.wants/infinibayd.service
    [ -n "$(host getent passwd infinibay)" ]
}
promise 'purged, it leaves nothing but its user' purge
printf 'DONE\n'
