# shellcheck shell=bash
# The image `pocket`: a kernel and an initial RAM disk that holds BusyBox and our agent. It is up
# in seconds even where the processor is emulated, which is what most tests want of a guest.
# Sourced, never run.

POCKET_IMAGE=pocket
# The disk is empty; the guest lives in memory. It is there because a VM has a disk.
POCKET_DISK_SIZE=16M
POCKET_MODULES=(virtio_pci virtio_console virtio_blk virtio_net virtio-rng button evdev)

# build_pocket IMAGES_DIR AGENT_BINARY [force]
build_pocket() {
    local dir=$1/$POCKET_IMAGE agent=$2 hash work root kernel
    hash=$(recipe_hash "$agent" "$LIB/image-pocket.sh" "$LIB/image.sh" "$LIB/debian.sh" \
        "$LIB"/guest/pocket/*)
    if [ "${3:-}" != force ] && image_is_current "$dir" "$hash"; then
        say "image $POCKET_IMAGE is up to date"
        return
    fi

    say "building image $POCKET_IMAGE"
    make_temp_dir work
    chmod 0755 -- "$work"
    root=$work/packages
    bootstrap "$root" --variant=extract --include=linux-image-cloud-amd64,busybox-static
    kernel=$(newest_kernel "$root")
    fill_pocket "$work/initrd.d" "$root" "$kernel" "$agent"
    # Not compressed: unpacking would cost an emulated processor more than QEMU's copying does.
    (cd -- "$work/initrd.d" && find . -print0 | LC_ALL=C sort -z |
        cpio --null --create --format=newc --owner=0:0 --reproducible --quiet) >"$work/initrd"
    qemu-img create -q -f qcow2 "$work/disk.qcow2" "$POCKET_DISK_SIZE"

    publish "$dir" "$hash" "A guest in memory for tests: BusyBox and the agent" none \
        "$work/disk.qcow2" "$root/boot/vmlinuz-$kernel" "$work/initrd" \
        'console=ttyS0 quiet panic=1'
    say "image $POCKET_IMAGE is in $dir ($(du -sh -- "$dir" | cut -f1))"
}

# fill_pocket TREE PACKAGES KERNEL AGENT: the content of the initial RAM disk.
fill_pocket() {
    local tree=$1 packages=$2 kernel=$3 agent=$4 applet
    install -d -- "$tree"/{bin,dev,etc/acpi,lib/modules,proc,run,sys,tmp,root}
    ln -s bin "$tree/sbin"
    install -m 0755 -- "$packages/bin/busybox" "$tree/bin/busybox"
    install -m 0755 -- "$agent" "$tree/bin/infiniservice"
    install -m 0755 -- "$LIB/guest/pocket/init" "$tree/init"
    install -m 0755 -- "$LIB/guest/pocket/network" "$tree/bin/network"
    install -m 0755 -- "$LIB/guest/pocket/network-lease" "$tree/bin/network-lease"
    install -m 0755 -- "$LIB/guest/pocket/power-button" "$tree/etc/acpi/power-button"
    install -m 0644 -- "$LIB/guest/pocket/inittab" "$tree/etc/inittab"
    install -m 0644 -- "$LIB/guest/pocket/acpid.conf" "$tree/etc/acpid.conf"
    printf 'root:x:0:0:root:/root:/bin/sh\n' >"$tree/etc/passwd"
    printf 'root:x:0:\n' >"$tree/etc/group"
    printf 'NAME="Infinibay pocket guest"\nID=infinibay-pocket\nVERSION_ID=1\nPRETTY_NAME="Infinibay pocket guest"\n' \
        >"$tree/etc/os-release"
    while read -r applet; do
        [ "$applet" = busybox ] || ln -s busybox "$tree/bin/$applet"
    done < <(chroot "$packages" /bin/busybox --list)
    copy_modules "$tree/lib/modules" "$packages" "$kernel"
}

# copy_modules TO PACKAGES KERNEL: the modules with all they need, and their order in `order`, so
# that the guest loads them with one insmod each and needs no modprobe.
copy_modules() {
    local to=$1 packages=$2 kernel=$3 base=$2/lib/modules/$3 module path needs
    local -A placed=()
    chroot "$packages" /sbin/depmod "$kernel"
    for module in "${POCKET_MODULES[@]}"; do
        needs=$(awk -F: -v name="/$module.ko" \
            'substr($1, length($1) - length(name) + 1) == name { print $2, $1 }' "$base/modules.dep")
        [ -n "$needs" ] || die "kernel $kernel has no module $module"
        # modules.dep lists what a module needs nearest first, itself last here: load from the far end.
        for path in $(load_order "$needs"); do
            [ -z "${placed[$path]:-}" ] || continue
            placed[$path]=yes
            install -m 0644 -- "$base/$path" "$to/${path##*/}"
            printf '%s\n' "${path##*/}" >>"$to/order"
        done
    done
}

# load_order "NEED… MODULE": the needs from the farthest to the nearest, then the module.
load_order() {
    local words i
    read -ra words <<<"$1"
    for ((i = ${#words[@]} - 2; i >= 0; i--)); do
        printf '%s\n' "${words[i]}"
    done
    printf '%s\n' "${words[-1]}"
}
