#!/bin/sh
# In the installed system, before it boots for the first time: the agent, the account's rights and
# keys, and what the first boot is to run.
set -u
umask 077
here=/var/lib/infinibay-install

if [ -f "$here/infiniservice/install-linux.sh" ]; then
    sh "$here/infiniservice/install-linux.sh" --best-effort
    rm -f "$here/infiniservice/seal.key"
fi

# The name was checked: lower-case letters, digits, '-' and '_'.
user=$(cat "$here/infinibay/user" 2>/dev/null)
if [ -n "$user" ]; then
    if [ "$user" != root ]; then
        mkdir -p /etc/sudoers.d
        printf '%s ALL=(ALL) NOPASSWD:ALL\n' "$user" >/etc/sudoers.d/90-infinibay
        chmod 0440 /etc/sudoers.d/90-infinibay
    fi
    home=$(getent passwd "$user" | cut -d: -f6)
    if [ -s "$here/infinibay/authorized_keys" ] && [ -n "$home" ] && [ -d "$home" ]; then
        mkdir -p "$home/.ssh"
        cat "$here/infinibay/authorized_keys" >>"$home/.ssh/authorized_keys"
        chown -R "$user:" "$home/.ssh"
    fi
fi

if [ -d "$here/first-boot" ]; then
    units=/etc/systemd/system
    mkdir -p "$units/multi-user.target.wants"
    (umask 022 && cat "$here/infinibay/infinibay-first-boot.service" >"$units/infinibay-first-boot.service")
    ln -sf ../infinibay-first-boot.service "$units/multi-user.target.wants/infinibay-first-boot.service"
else
    rm -rf "$here"
fi

# Made by an installer, files have no labels, or its own.
if command -v restorecon >/dev/null 2>&1; then
    restorecon -RF /usr/local/bin /etc/systemd/system /etc/infiniservice /etc/sudoers.d /var/lib /home /root
fi >/dev/null 2>&1
exit 0
