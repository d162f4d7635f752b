# shellcheck shell=bash
# The guest images by name, and how to have them built. Sourced, never run.

# shellcheck source=scripts/lib/debian.sh
. "$LIB/debian.sh"
# shellcheck source=scripts/lib/image.sh
. "$LIB/image.sh"
# shellcheck source=scripts/lib/image-debian.sh
. "$LIB/image-debian.sh"
# shellcheck source=scripts/lib/image-pocket.sh
. "$LIB/image-pocket.sh"

# build_images LIBRARY FORCE NAME…: builds `debian` and `pocket` as named; FORCE is `force` or
# empty. One build at a time per library; a second one waits and then finds the work done.
build_images() {
    local library=$1 force=$2 name agent lock
    shift 2
    exec {lock}>"$library/.build.lock"
    flock "$lock"
    for name in "$@"; do
        case $name in
            debian) build_debian "$library" "$force" ;;
            pocket)
                need_rust
                build_agent agent
                build_pocket "$library" "$agent" "$force"
                ;;
            *) die "there is no recipe for an image '$name'" ;;
        esac
    done
    exec {lock}>&-
}
