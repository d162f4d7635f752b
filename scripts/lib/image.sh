# shellcheck shell=bash
# How an image enters the library: files under names of their content, then one rename of the
# manifest. Sourced, never run.
#
# A disk that VMs were made from must never change under them: their overlays name it by path.
# So a new build adds files and moves the manifest to them; superseded files stay until a person
# removes them, once no VM builds upon them.

# recipe_hash FILE…: one hash over what an image is made from.
recipe_hash() {
    sha256sum -- "$@" | awk '{ print $1 }' | sha256sum | awk '{ print $1 }'
}

# image_is_current DIR HASH: whether DIR holds an image, whole, made by the recipe of that hash.
image_is_current() {
    local name
    [ "$(cat -- "$1/recipe.sha256" 2>/dev/null)" = "$2" ] && [ -e "$1/manifest.toml" ] || return 1
    while read -r name; do
        [ -e "$1/$name" ] || return 1
    done < <(sed -n 's/^\(disk\|kernel\|initrd\) = "\(.*\)"$/\2/p' "$1/manifest.toml")
}

# adopt FILE DIR STEM SUFFIX: moves FILE into DIR as STEM-<12 digits of its SHA-256>SUFFIX, and
# prints that name. Atomic: a reader sees the whole file or none.
adopt() {
    local file=$1 dir=$2 name
    name=$3-$(sha256sum -- "$file" | cut -c1-12)$4
    if [ ! -e "$dir/$name" ]; then
        install -m 0644 -- "$file" "$dir/.$name.part"
        sync -- "$dir/.$name.part"
        mv -f -- "$dir/.$name.part" "$dir/$name"
    fi
    printf '%s\n' "$name"
}

# publish DIR HASH DESCRIPTION PROVISIONING DISK KERNEL INITRD CMDLINE: adopts the three files
# and then names them in the manifest.
publish() {
    local dir=$1 hash=$2 description=$3 provisioning=$4 cmdline=$8 disk kernel initrd
    install -d -m 0755 -- "$dir"
    disk=$(adopt "$5" "$dir" disk .qcow2)
    kernel=$(adopt "$6" "$dir" vmlinuz '')
    initrd=$(adopt "$7" "$dir" initrd .img)
    {
        printf 'description = %s\n' "$(toml_string "$description")"
        printf 'os_family = "linux"\n'
        printf 'provisioning = %s\n' "$(toml_string "$provisioning")"
        printf 'disk = %s\n' "$(toml_string "$disk")"
        printf 'format = "qcow2"\n'
        printf 'sha256 = "%s"\n' "$(sha256sum -- "$dir/$disk" | awk '{ print $1 }')"
        printf '\n[kernel]\n'
        printf 'kernel = %s\n' "$(toml_string "$kernel")"
        printf 'initrd = %s\n' "$(toml_string "$initrd")"
        printf 'cmdline = %s\n' "$(toml_string "$cmdline")"
    } >"$dir/.manifest.part"
    chmod 0644 -- "$dir/.manifest.part"
    mv -f -- "$dir/.manifest.part" "$dir/manifest.toml"
    # Last: a build that was cut short is not current.
    printf '%s\n' "$hash" >"$dir/recipe.sha256"
}

# newest_kernel ROOT: the version of the newest kernel under ROOT/boot.
newest_kernel() {
    local versions
    versions=$(find "$1/boot" -maxdepth 1 -name 'vmlinuz-*' -printf '%f\n' | sed 's/^vmlinuz-//')
    [ -n "$versions" ] || die "no kernel was unpacked into $1/boot"
    sort -V <<<"$versions" | tail -n 1
}
