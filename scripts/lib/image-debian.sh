# shellcheck shell=bash
# The image `debian-12`: a small Debian that cloud-init makes into somebody's machine.
# Sourced, never run.
#
# The disk is one ext4 filesystem without partitions or boot loader; VMs boot the kernel that lies
# beside it. No loop device and no mount are needed to build it.

DEBIAN_IMAGE=debian-12
# Small enough to be quick to copy; cloud-init grows the filesystem to the VM's disk.
DEBIAN_DISK_SIZE=2G
DEBIAN_PACKAGES=(
    linux-image-cloud-amd64 systemd-sysv udev dbus
    cloud-init netplan.io systemd-resolved systemd-timesyncd iproute2 iputils-ping
    e2fsprogs procps ca-certificates curl sudo openssh-server qemu-guest-agent
    lz4
)
# Work that a machine which lives for hours has no use for, and which would run during first boots.
DEBIAN_MASKED=(
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer
    e2scrub_all.timer e2scrub_reap.service
)

# build_debian IMAGES_DIR [force]
build_debian() {
    local dir=$1/$DEBIAN_IMAGE hash work root kernel
    hash=$(recipe_hash "$LIB/image-debian.sh" "$LIB/image.sh" "$LIB/debian.sh" "$LIB"/guest/debian/*)
    if [ "${2:-}" != force ] && image_is_current "$dir" "$hash"; then
        say "image $DEBIAN_IMAGE is up to date"
        return
    fi

    say "building image $DEBIAN_IMAGE: packages"
    make_temp_dir work
    chmod 0755 -- "$work"
    root=$work/root
    bootstrap "$root" --variant=minbase \
        --include="$(IFS=,; printf '%s' "${DEBIAN_PACKAGES[*]}")" \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-include=/usr/share/doc/*/copyright'

    say "building image $DEBIAN_IMAGE: settings and initrd"
    configure_debian "$root"
    kernel=$(newest_kernel "$root")
    chroot "$root" update-initramfs -u -k "$kernel" >"$work/initramfs.log" 2>&1 || {
        cat "$work/initramfs.log" >&2
        die "the initrd of $DEBIAN_IMAGE could not be made"
    }
    mv -- "$root/boot/vmlinuz-$kernel" "$work/vmlinuz"
    mv -- "$root/boot/initrd.img-$kernel" "$work/initrd"

    say "building image $DEBIAN_IMAGE: disk"
    truncate -s "$DEBIAN_DISK_SIZE" "$work/disk.raw"
    mke2fs -q -t ext4 -L root -d "$root" "$work/disk.raw"
    qemu-img convert -f raw -O qcow2 -c -o compression_type=zstd "$work/disk.raw" "$work/disk.qcow2"

    publish "$dir" "$hash" "Debian 12 (bookworm), cloud kernel $kernel" cloud-init \
        "$work/disk.qcow2" "$work/vmlinuz" "$work/initrd" \
        'root=LABEL=root rw console=ttyS0 quiet'
    # What went in, for whoever must know later; a repeat with the same versions gives the same
    # guest.
    # shellcheck disable=SC2016 # dpkg-query expands these
    chroot "$root" dpkg-query -W -f '${Package} ${Version}\n' >"$dir/packages.txt"
    say "image $DEBIAN_IMAGE is in $dir ($(du -sh -- "$dir" | cut -f1))"
}

# configure_debian ROOT: everything that is not a package.
configure_debian() {
    local root=$1 unit
    install -m 0644 -- "$LIB/guest/debian/cloud.cfg" "$root/etc/cloud/cloud.cfg.d/90_infinibay.cfg"
    install -D -m 0644 -- "$LIB/guest/debian/wait-online.conf" \
        "$root/etc/systemd/system/systemd-networkd-wait-online.service.d/infinibay.conf"
    install -m 0644 -- "$LIB/guest/debian/initramfs-modules" "$root/etc/initramfs-tools/modules"
    install -m 0644 -- "$LIB/guest/debian/initramfs.conf" \
        "$root/etc/initramfs-tools/conf.d/infinibay.conf"
    install -m 0644 -- "$LIB/guest/debian/fstab" "$root/etc/fstab"
    # Every guest makes its own.
    rm -f -- "$root"/etc/ssh/ssh_host_*
    : >"$root/etc/machine-id"
    # The builder's resolvers and name are nobody else's.
    ln -sfn ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
    printf 'localhost\n' >"$root/etc/hostname"
    for unit in "${DEBIAN_MASKED[@]}"; do
        ln -sfn /dev/null "$root/etc/systemd/system/$unit"
    done
    # Guests boot the kernel beside the disk; another one inside would not be booted, and
    # removing this one's modules would break them.
    chroot "$root" apt-mark hold linux-image-cloud-amd64 "linux-image-$(newest_kernel "$root")" >/dev/null
}
