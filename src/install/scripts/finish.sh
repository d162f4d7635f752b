#!/bin/sh
# finish.sh TARGET: run by an installer when the system at TARGET is installed. Leaves there what
# its first boot needs, the agent above all. Never fails: an agent that is missing is told by its
# silence, an installation that is broken helps nobody.
target=${1%/}
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd) || exit 0
kept=$target/var/lib/infinibay-install
sh "$here/report.sh" installed
(: >"$here/done") 2>/dev/null
(
    umask 077
    mkdir -p "$kept" || exit 1
    for folder in infiniservice infinibay first-boot; do
        [ ! -d "$here/../$folder" ] || cp -r "$here/../$folder" "$kept/" || exit 1
    done
    chroot "$target" /bin/sh /var/lib/infinibay-install/infinibay/inside.sh
) </dev/null || echo "infinibay: the installed system could not be given all of its files" >&2
sh "$here/report.sh" finished
exit 0
