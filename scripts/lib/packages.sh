# shellcheck shell=bash
# shellcheck disable=SC2034 # the lists are for the scripts that source this
# The Debian packages that the project's scripts need, installed when missing. Sourced, never run.

# shellcheck source=scripts/lib/equivalents.sh
. "$LIB/equivalents.sh"

# What guests' images are built with.
IMAGE_PACKAGES=(mmdebstrap qemu-utils e2fsprogs cpio jq gcc libc6-dev binutils)
# What running VMs and building the daemon takes.
HOST_PACKAGES=(
    libvirt-daemon-system libvirt-clients libvirt-dev qemu-system-x86 qemu-utils
    dnsmasq-base iptables gcc libc6-dev binutils pkg-config curl jq xorriso
)
# What the tests take besides: a PostgreSQL server, virt-xml-validate's xmllint, /bin/kill, a clock
# that can be set, and setpriv, setsid, flock, blkid, unshare and nsenter, which a container's image
# may have been stripped of; what reads installers' files (more of that in validators.sh); depmod, for
# the installer's disc; what gives VMs UEFI and a TPM; what checks and installs the Debian package;
# Node.js for clients of the API, others are Python's (clients.sh).
TEST_PACKAGES=(
    postgresql libxml2-utils procps util-linux faketime shellcheck genisoimage debconf python3-venv kmod
    ovmf swtpm swtpm-tools systemd init-system-helpers
)
# Node.js that came from elsewhere brings its npm along, and refuses Debian's.
command -v node >/dev/null && command -v npm >/dev/null || TEST_PACKAGES+=(nodejs npm)
# The packages of HOST_PACKAGES that come out of one source and must be of one suite.
HYPERVISOR_PACKAGES=(
    libvirt-daemon-system libvirt-clients libvirt-dev qemu-system-x86 qemu-utils
)

# missing_packages NAME…: those that are not installed, one a line.
missing_packages() {
    local name
    for name in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] ||
            printf '%s\n' "$name"
    done
}

# apt_is_the_hosts: whether this host's own packages come through apt. Other systems may have the
# program too, to build Debian images with.
apt_is_the_hosts() {
    command -v apt-get >/dev/null &&
        [ "$(dpkg-query -W -f '${db:Status-Status}' apt 2>/dev/null)" = installed ]
}

# need_packages NAME…: installs what is missing. Does nothing, and asks no server, when all is
# there. On a host without apt it only looks whether what the packages hold is there.
need_packages() {
    if ! apt_is_the_hosts; then
        need_equivalents "$@"
        return
    fi
    local missing present options=()
    mapfile -t missing < <(missing_packages "$@")
    [ ${#missing[@]} -gt 0 ] || return 0
    need_root
    say "installing ${missing[*]}"
    apt_get update
    if installed_from_backports; then
        ensure_backports
        options=(-t "$(host_codename)-backports")
    fi
    # The parts of the hypervisor that are here are named too, so that apt may move them along
    # instead of refusing.
    mapfile -t present < <(comm -23 <(printf '%s\n' "${HYPERVISOR_PACKAGES[@]}" | sort) \
        <(missing_packages "${HYPERVISOR_PACKAGES[@]}" | sort))
    apt_get install --no-install-recommends "${options[@]}" "${missing[@]}" "${present[@]}"
}

apt_get() {
    DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 \
        -o Dpkg::Use-Pty=0 -o APT::Install-Suggests=0 "$@" >&2 ||
        die "apt-get $1 failed; what it said is above"
}

host_codename() {
    # shellcheck source=/dev/null
    (. /etc/os-release && printf '%s\n' "${VERSION_CODENAME:?}")
}

# installed_from_backports: whether a QEMU package that is here is newer than anything the host's
# release has: then its siblings of the release conflict with it.
installed_from_backports() {
    local package have best
    for package in qemu-utils qemu-system-common libvirt0; do
        have=$(dpkg-query -W -f '${Version}' "$package" 2>/dev/null) || continue
        [ -n "$have" ] || continue
        best=$(release_version "$package")
        [ -n "$best" ] && dpkg --compare-versions "$have" gt "$best" && return 0
    done
    return 1
}

# release_version PACKAGE: the newest version that the host's release offers, backports aside.
release_version() {
    local version best=''
    while read -r version; do
        if [ -z "$best" ] || dpkg --compare-versions "$version" gt "$best"; then
            best=$version
        fi
    done < <(apt-cache madison "$1" | awk -F'|' '$3 !~ /-backports/ { gsub(/ /, "", $2); print $2 }')
    printf '%s\n' "$best"
}

# ensure_backports: adds the host's backports suite, from the mirror the host already uses.
ensure_backports() {
    local suite uri file
    suite=$(host_codename)-backports
    # shellcheck disable=SC2016 # apt expands these
    apt-get indextargets --format '$(RELEASE)' 'Created-By: Packages' | grep -xF "$suite" >/dev/null && return 0
    # shellcheck disable=SC2016
    uri=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' 'Origin: Debian' |
        awk -v suite="$(host_codename)" '$2 == suite { print $1; exit }')
    [ -n "$uri" ] || die "QEMU on this host is newer than its release, and no Debian source is" \
        "configured from which $suite could be had; add that suite to apt's sources"
    file=/etc/apt/sources.list.d/$suite.sources
    say "adding the suite $suite, which this host's QEMU came from ($file)"
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' \
        "$uri" "$suite" /usr/share/keyrings/debian-archive-keyring.gpg >"$file.part"
    mv -f -- "$file.part" "$file"
    apt_get update
}

# need_rust: the one thing apt's version is too old for.
need_rust() {
    local want have
    # A job's shell may not have read the profile that rustup wrote.
    if ! command -v cargo >/dev/null && [ -x "${CARGO_HOME:-${HOME:-}/.cargo}/bin/cargo" ]; then
        PATH=${CARGO_HOME:-${HOME:-}/.cargo}/bin:$PATH
    fi
    command -v cargo >/dev/null || die "cargo is not in PATH; install Rust first (rustup)"
    want=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$REPO/Cargo.toml" | head -n 1)
    have=$(cd -- "$REPO" && rustc --version | awk '{ print $2 }')
    [ "$(printf '%s\n%s\n' "$want" "$have" | sort -V | head -n 1)" = "$want" ] ||
        die "Rust $want or newer is needed; this is $have"
}

# need_rust_tools: what the checks take besides; rustup's smallest profile leaves them out.
need_rust_tools() {
    (cd -- "$REPO" && cargo fmt --version && cargo clippy --version) >/dev/null 2>&1 && return
    command -v rustup >/dev/null || die "cargo has no rustfmt or no clippy; install both"
    (cd -- "$REPO" && rustup component add rustfmt clippy) >&2 ||
        die "rustup could not add rustfmt and clippy; what it said is above"
}

# The version that the package's story knows.
CARGO_DEB=3.8.0
# need_cargo_deb: what makes the Debian package.
need_cargo_deb() {
    [ "$(cargo deb --version 2>/dev/null)" = "cargo-deb $CARGO_DEB" ] && return
    say "installing cargo-deb $CARGO_DEB"
    cargo install --locked --force cargo-deb --version "$CARGO_DEB" >&2 ||
        die "cargo-deb could not be installed; what it said is above"
}

# need_cargo_fuzz: the one tool that fuzzing takes.
need_cargo_fuzz() {
    cargo fuzz --version >/dev/null 2>&1 && return
    say "installing cargo-fuzz"
    cargo install --locked cargo-fuzz >&2 || die "cargo-fuzz could not be installed; what it said is above"
}
