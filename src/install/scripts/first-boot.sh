#!/bin/sh
# Runs what the first boot was told to run, once, in its order; what fails does not stop the rest.
umask 077
here=/var/lib/infinibay-install
exec >>/var/log/infinibay-first-boot.log 2>&1 </dev/null
for script in "$here"/first-boot/*; do
    [ -f "$script" ] || continue
    echo "== $(date -u +%FT%TZ) ${script##*/}"
    # What they make is for everybody, as on any other boot.
    (umask 022 && cd / && exec sh "$script")
    echo "== ended with code $?"
done
sh "$here/infinibay/report.sh" first-boot
# They may hold secrets.
rm -rf -- "$here"
exit 0
