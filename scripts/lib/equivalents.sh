# shellcheck shell=bash
# What the Debian packages of packages.sh stand for, so that a host of another kind can be told
# what it lacks instead of what Debian calls it. Sourced, never run.

# PACKAGE: WHAT…: USE. WHAT is a command, `a|b` either of two; `pkg-config:NAME`, `header:NAME` and
# `library:NAME` are what a compiler finds, `postgres:NAME` is where PostgreSQL keeps its server,
# `file:PATTERN` any file of such a path.
EQUIVALENTS='
mmdebstrap: mmdebstrap apt-get: building guest images
qemu-utils: qemu-img: disk images
e2fsprogs: mke2fs: building the image debian-12
cpio: cpio: building the image pocket
jq: jq: talking to the API
curl: curl: talking to the API
xorriso: xorriso: reading the discs that configure guests
gcc: gcc cc: building the daemon and the agent
libc6-dev: header:stdlib.h library:libc.a: building the agent, a static program
binutils: ld readelf: building the daemon and the agent
pkg-config: pkg-config: building the daemon
libvirt-dev: pkg-config:libvirt pkg-config:libvirt-qemu: building the daemon
libvirt-daemon-system: libvirtd|virtqemud virtlogd: running VMs
libvirt-clients: virsh virt-xml-validate: running VMs
qemu-system-x86: qemu-system-x86_64|/usr/libexec/qemu-kvm: running VMs
dnsmasq-base: dnsmasq: the network of VMs
iptables: iptables|nft: the network of VMs
postgresql: postgres:initdb: tests on PostgreSQL
libxml2-utils: xmllint: tests of the domain XML
debconf: debconf-set-selections: tests of what installers read
python3-venv: python3: tests of what installers read, and of the API with clients of PyPI
procps: kill: tests
util-linux: flock setpriv setsid blkid unshare nsenter: these scripts and the tests
faketime: faketime: tests of a clock that is set
kmod: depmod: the disc of an installer, for tests
shellcheck: shellcheck: checking the scripts
genisoimage: genisoimage: tests of installation discs
ovmf: file:/usr/share/qemu/firmware/*.json: tests of VMs with UEFI
swtpm: swtpm: tests of VMs with a TPM
swtpm-tools: swtpm_setup: tests of VMs with a TPM
systemd: systemd-analyze systemd-sysusers systemd-tmpfiles: the test of the Debian package
init-system-helpers: dpkg deb-systemd-helper: the test of the Debian package
nodejs: node: tests of the API with clients of front ends
npm: npm: tests of the API with clients of front ends
'

# need_equivalents PACKAGE…: goes on when all that these packages stand for is there; else says what
# is missing and what it is for, all of it.
need_equivalents() {
    local package line whats use what missing=''
    for package in "$@"; do
        line=$(grep -m 1 "^$package: " <<<"$EQUIVALENTS") ||
            die "nobody has said what the package $package is for (scripts/lib/equivalents.sh)"
        line=${line#*: } whats=${line%: *} use=${line##*: }
        for what in $whats; do
            is_there "$what" || missing+=$(printf '  %-28s for %s' "${what/:/ }" "$use")$'\n'
        done
    done
    [ -n "$missing" ] || return 0
    printf 'error: this host has no apt to install packages with, and it lacks\n%s%s\n' \
        "$(sort -u <<<"${missing%$'\n'}")" \
        $'\nInstall these with its own package manager; docs/OPERATIONS.md knows some names.' >&2
    exit 1
}

# is_there WHAT: as the table has it.
is_there() {
    local name=${1#*:}
    case $1 in
        pkg-config:*) pkg-config --exists "$name" 2>/dev/null ;;
        header:*) cc -E -include "$name" -x c /dev/null >/dev/null 2>&1 ;;
        # A compiler that does not find it gives the name back.
        library:*) [ "$(cc -print-file-name="$name" 2>/dev/null || true)" != "$name" ] && is_there cc ;;
        file:*) compgen -G "$name" >/dev/null ;;
        postgres:*)
            compgen -G "/usr/lib/postgresql/*/bin/$name" >/dev/null ||
                [ -x "$(pg_config --bindir 2>/dev/null || true)/$name" ]
            ;;
        *\|*) is_there "${1%%|*}" || is_there "${1#*|}" ;;
        # Not a shell's own command of that name: programs call it too.
        *) type -P "$1" >/dev/null ;;
    esac
}
