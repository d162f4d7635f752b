#!/bin/sh
# Reports each phase of the Debian installer as it begins, until the system is installed.
last=''
while [ ! -e /infinibay/done ]; do
    phase=$(sed -n "s/.*Menu item '\([a-z0-9-]*\)' selected.*/\1/p" /var/log/syslog 2>/dev/null | tail -n 1)
    if [ -n "$phase" ] && [ "$phase" != "$last" ]; then
        last=$phase
        sh /infinibay/report.sh "installer-$phase"
    fi
    sleep 5
done
