# shellcheck shell=bash
# Debian's installer on a disc of its own, for stories and for `scripts/test-install`: what its network
# boot consists of, laid out as Debian's discs are. Sourced, never run.
#
# Its kernel modules for disks and file systems come from the mirror when it runs, as packages that
# fit its very kernel. A mirror that has moved on to another kernel, or keeps no such packages, has
# none that fit; so the disc brings the modules along, out of the package of the same kernel.

# shellcheck source=scripts/lib/debian.sh
. "$LIB/debian.sh"
# shellcheck source=scripts/lib/image.sh
. "$LIB/image.sh"

INSTALLER_SUITE=trixie
INSTALLER_PACKAGE=debian-installer-13-netboot-amd64
# Relative to /lib/modules/VERSION/kernel.
INSTALLER_MODULES=(fs drivers/ata drivers/block drivers/scsi drivers/cdrom drivers/virtio lib crypto arch)

# need_installer DIR: DIR/debian-13.iso. Does nothing, and asks no server, when it is there.
need_installer() {
    local dir=$1 made hash
    hash=$(recipe_hash "$LIB/installer.sh" "$LIB/debian.sh")
    [ "$(cat -- "$dir/made-from" 2>/dev/null)" = "$hash" ] && [ -s "$dir/debian-13.iso" ] && return
    say "making a disc of Debian's installer ($INSTALLER_PACKAGE)"
    install -d -m 0755 -- "$dir"
    make_temp_dir made "$dir"
    chmod 0755 -- "$made"
    lay_out_installer "$made" "$made/disc"
    xorriso -as mkisofs -quiet -r -J -V 'Debian 13 amd64 n' -o "$made/debian-13.iso" "$made/disc" 2>"$made/log" || {
        cat -- "$made/log" >&2
        die "xorriso could not write the installer's disc; what it said is above"
    }
    mv -f -- "$made/debian-13.iso" "$dir/debian-13.iso"
    printf '%s\n' "$hash" >"$dir/made-from"
}

# lay_out_installer WORK DISC
lay_out_installer() {
    local work=$1 disc=$2 from kernel
    local GUEST_SUITE=$INSTALLER_SUITE
    bootstrap "$work/installer" --variant=extract --include="$INSTALLER_PACKAGE"
    from=$work/installer/usr/lib/debian-installer/images/13/amd64/text/debian-installer/amd64
    install -d -m 0755 -- "$disc/.disk" "$disc/install.amd"
    install -m 0644 -- "$from/linux" "$disc/install.amd/vmlinuz"
    install -m 0644 -- "$from/initrd.gz" "$disc/install.amd/initrd.gz"
    kernel=$(zcat -- "$from/initrd.gz" | cpio --quiet --list 2>/dev/null |
        sed -n 's|^usr/lib/modules/\([^/]*\)$|\1|p')
    [ -n "$kernel" ] || die "the installer's RAM disk has no modules to tell its kernel by"
    # Like a disc, but one that all packages are fetched for.
    printf 'Debian GNU/Linux 13 "Trixie" - Unofficial amd64 NETINST with %s\n' "$kernel" >"$disc/.disk/info"
    bootstrap "$work/kernel" --variant=extract --include="linux-image-$kernel"
    add_modules "$work" "$kernel" >>"$disc/install.amd/initrd.gz"
}

# add_modules WORK VERSION: what is to follow the installer's RAM disk: its own modules and those that
# it would fetch, with the index of both, packed.
add_modules() {
    local work=$1 version=$2 tree=$1/modules part
    local base=usr/lib/modules/$version
    local full=$work/kernel/$base
    install -d -m 0755 -- "$tree"
    (cd -- "$tree" && zcat -- "$work/disc/install.amd/initrd.gz" |
        cpio --quiet --extract --make-directories "$base/*")
    for part in "${INSTALLER_MODULES[@]}"; do
        install -d -m 0755 -- "$tree/$base/kernel/$part"
        cp -a -- "$full/kernel/$part/." "$tree/$base/kernel/$part/"
    done
    cp -a -- "$full"/modules.{order,builtin,builtin.modinfo} "$tree/$base/"
    # It looks below lib; the link itself is the installer's already.
    ln -s usr/lib "$tree/lib"
    depmod --basedir "$tree" "$version" >&2
    rm -- "$tree/lib"
    (cd -- "$tree" && find . -mindepth 1 -print0 | LC_ALL=C sort -z |
        cpio --null --create --format=newc --owner=0:0 --reproducible --quiet) | gzip -1
}
