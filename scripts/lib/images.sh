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

# build_images LIBRARY MADE_FILE FORCE NAME…: builds `debian` and `pocket` as named; FORCE is
# `force` or empty. What was not there before is noted in MADE_FILE (see note_made). One build at a
# time per library; a second one waits and then finds the work done.
build_images() {
    local library=$1 made=$2 force=$3 name agent lock
    shift 3
    exec {lock}>"$library/.build.lock"
    flock "$lock"
    for name in "$@"; do
        case $name in
            debian)
                note_image "$made" "$library/$DEBIAN_IMAGE"
                build_debian "$library" "$force"
                ;;
            pocket)
                note_image "$made" "$library/$POCKET_IMAGE"
                need_rust
                build_agent agent
                build_pocket "$library" "$agent" "$force"
                ;;
            *) die "there is no recipe for an image '$name'" ;;
        esac
    done
    exec {lock}>&-
}

# note_image MADE_FILE DIR: remembers an image that was not there before us.
note_image() {
    [ -d "$2" ] || note_made "$1" image "$2"
}
