#!/bin/sh
# Installs infiniservice, Infinibay's agent, on a Linux system with systemd. May be run again.
set -u
umask 077

usage() {
    cat <<'USAGE'
usage: install-linux.sh [--vm-id ID] [--url URL] [--sha256 HEX] [--first-boot cloud-init|none]
                        [--root DIR] [--best-effort]

  --vm-id ID      the VM's id
  --url URL       where the controller serves downloads; without a binary beside this script
                  URL/linux/binary is fetched (also from the environment: INFINISERVICE_URL), and
                  its checksum compared with the one it came with
  --sha256 HEX    the binary's checksum, known from elsewhere; counts more than what came with it
  --first-boot X  who does the first boot's work: cloud-init or none
  --root DIR      install into a system mounted at DIR and start nothing
  --best-effort   never fail: log to /var/log/infiniservice-install.log, try again at next boot

Taken from beside this script if present: infiniservice, infiniservice.env, infiniservice.service,
seal.key.
USAGE
}

say() { echo "infiniservice-install: $*" >&2; }

best_effort=''
for argument; do
    [ "$argument" != --best-effort ] || best_effort=yes
done
# An installer that called with --best-effort goes on whatever happens here.
bad() {
    say "$*"
    [ -n "$best_effort" ] && exit 0
    exit 2
}

vm_id='' url='' sha256='' first_boot='' root='' given_url=${INFINISERVICE_URL:-}
while [ $# -gt 0 ]; do
    case $1 in
    --vm-id | --url | --sha256 | --first-boot | --root)
        [ $# -ge 2 ] || bad "$1 wants a value"
        case $1 in
        --vm-id) vm_id=$2 ;;
        --url) url=$2 ;;
        --sha256) sha256=$2 ;;
        --first-boot) first_boot=$2 ;;
        --root) root=${2%/} ;;
        esac
        shift 2
        ;;
    --best-effort) shift ;;
    --help) usage && exit 0 ;;
    *) bad "unknown argument $1; see --help" ;;
    esac
done
url=${url:-$given_url}
url=${url%/}

case $vm_id in *[!A-Za-z0-9._-]*) bad "--vm-id: only letters, digits, '.', '_' and '-'" ;; esac
case $first_boot in '' | cloud-init | none) ;; *) bad "--first-boot: cloud-init or none" ;; esac
case $url in
'' | http://* | https://*) ;;
*) bad "--url: not http:// or https://" ;;
esac
case $url in *[!A-Za-z0-9._~:/?@!+,=%\[\]-]*) bad "--url: a character that has no place there" ;; esac
sha256=$(printf '%s' "$sha256" | tr A-F a-f)
case $sha256 in *[!0-9a-f]*) bad "--sha256: not hexadecimal" ;; esac
case ${#sha256} in 0 | 64) ;; *) bad "--sha256: not 64 digits" ;; esac
case $root in '' | /*) ;; *) bad "--root: not an absolute path" ;; esac

# What lies beside this script counts; where it comes through a pipe nothing does, whatever the directory
# that somebody happens to be in holds.
here=/nonexistent
case $0 in
install-linux.sh | */install-linux.sh)
    [ ! -f "$0" ] || here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd) || bad "cannot find my own directory"
    ;;
esac
program=$root/usr/local/bin/infiniservice
settings=$root/etc/infiniservice/infiniservice.env
key=$root/etc/infiniservice/seal.key
units=$root/etc/systemd/system
kept=$root/var/lib/infiniservice
temporary=
answer=
trap 'rm -f -- ${temporary:+"$temporary"} ${answer:+"$answer"}' EXIT
trap 'exit 1' HUP INT TERM

# The file given becomes the file named, in one step, with this mode.
put() { # mode file
    chmod "$1" "$temporary" && mv -f -- "$temporary" "$2" && temporary=''
}

# Folders are for everybody to pass, files for whom their mode says.
folder() { # path
    (umask 022 && mkdir -p -- "$1")
}

new() { # file
    [ -z "$temporary" ] || rm -f -- "$temporary"
    temporary=''
    folder "$(dirname -- "$1")" && temporary=$(mktemp "$1.XXXXXX")
}

is_elf() { # file
    [ "$(dd if="$1" bs=4 count=1 2>/dev/null | od -An -tx1 | tr -d ' \n')" = 7f454c46 ]
}

# What the server said goes into the third file: its last X-Checksum-Sha256 is the binary's.
fetch() { # address file answer
    if command -v curl >/dev/null 2>&1; then
        curl -fsSL --retry 3 --connect-timeout 10 --max-time 300 --max-filesize 67108864 -D "$3" -o "$2" -- "$1"
    elif command -v wget >/dev/null 2>&1; then
        wget -S -T 30 -t 3 -O "$2" -- "$1" 2>"$3"
    else
        say "neither curl nor wget is here"
        return 1
    fi
}

checksum() { # file
    if command -v sha256sum >/dev/null 2>&1; then
        sum=$(sha256sum <"$1") && printf '%s\n' "${sum%% *}"
    elif command -v openssl >/dev/null 2>&1; then
        sum=$(openssl dgst -sha256 -r <"$1") && printf '%s\n' "${sum%% *}"
    else
        return 1
    fi
}

# The program in $temporary is what it has to be, where that is known; what was fetched has to be known.
verify() { # checksum
    is=$(checksum "$temporary") || { say "neither sha256sum nor openssl is here"; return 1; }
    [ "$is" = "$1" ] || { say "the program's checksum is $is, and should be $1"; return 1; }
}

# An id or an address given replaces the one in the file; the rest of the file stays.
write_settings() {
    new "$settings" || return 1
    if [ -f "$here/infiniservice.env" ]; then
        cat -- "$here/infiniservice.env" >"$temporary" || return 1
    elif [ -f "$settings" ]; then
        cat -- "$settings" >"$temporary" || return 1
    fi
    set_value INFINIBAY_VM_ID "$vm_id" &&
        set_value INFINISERVICE_URL "$url" &&
        set_value INFINIBAY_FIRST_BOOT "$first_boot" &&
        put 0600 "$settings"
}

set_value() { # name value
    [ -n "$2" ] || return 0
    others=$(grep -v "^$1=" "$temporary")
    printf '%s%s=%s\n' "${others:+$others
}" "$1" "$2" >"$temporary"
}

# What the host and the agent seal with, which a running agent reads when it starts: for root alone, also while it is written.
write_key() {
    [ -f "$here/seal.key" ] || return 0
    cmp -s -- "$here/seal.key" "$key" || changed_key=yes
    new "$key" && cat -- "$here/seal.key" >"$temporary" && put 0600 "$key"
}

install_program() {
    new "$program" || return 1
    if [ -f "$here/infiniservice" ]; then
        cat -- "$here/infiniservice" >"$temporary" || return 1
        [ -z "$sha256" ] || verify "$sha256" || return 1
    else
        source=$url
        if [ -z "$source" ] && [ -f "$settings" ]; then
            source=$(sed -n 's/^INFINISERVICE_URL=//p' "$settings" | tail -n 1)
        fi
        if [ -z "$source" ]; then
            say "no binary beside this script, and no --url to fetch it from"
            return 1
        fi
        answer=$(mktemp "$temporary.answer.XXXXXX") || return 1
        fetch "$source/linux/binary" "$temporary" "$answer" || { say "fetching $source/linux/binary failed"; return 1; }
        wanted=$sha256
        if [ -z "$wanted" ]; then
            wanted=$(sed -n 's/^ *[Xx]-[Cc]hecksum-[Ss]ha256: *\([0-9a-f]\{64\}\)[[:space:]]*$/\1/p' "$answer" | tail -n 1)
        fi
        rm -f -- "$answer" && answer=''
        [ -n "$wanted" ] || { say "the program came without a checksum; give --sha256"; return 1; }
        verify "$wanted" || return 1
    fi
    is_elf "$temporary" || { say "what came is no program (an error page?)"; return 1; }
    chmod 0755 "$temporary"
    version=$("$temporary" --version) || { say "the program does not run on this system"; return 1; }
    if cmp -s -- "$temporary" "$program"; then
        rm -f -- "$temporary" && temporary=''
        changed=''
    else
        put 0755 "$program" || return 1
        changed=yes
    fi
    say "$version"
}

unit() {
    if [ -f "$here/infiniservice.service" ]; then
        cat -- "$here/infiniservice.service"
        return
    fi
    cat <<'UNIT'
[Unit]
Description=Infinibay agent
# It starts early and waits for nothing: it reports the first boot while that goes on, and a port
# that is not there yet is its own business (no condition on the device: it may be plugged in).
StartLimitIntervalSec=0

[Service]
EnvironmentFile=-/etc/infiniservice/infiniservice.env
ExecStart=/usr/local/bin/infiniservice
Restart=always
RestartSec=2
# A package manager at work must survive a restart of the agent, also one that it causes itself.
KillMode=process
# The last to go when memory is short; the commands it runs are not.
OOMScoreAdjust=-500
LimitNOFILE=1024:524288

[Install]
WantedBy=multi-user.target
UNIT
}

want() { # unit
    folder "$units/multi-user.target.wants" &&
        ln -sf -- "../$1" "$units/multi-user.target.wants/$1"
}

install_unit() {
    new "$units/infiniservice.service" &&
        unit >"$temporary" &&
        put 0644 "$units/infiniservice.service" &&
        want infiniservice.service
}

# Starting is the system's affair: waiting for it could wait for the installation that calls us.
start() {
    [ -z "$root" ] || return 0
    if ! [ -d /run/systemd/system ]; then
        say "systemd does not run here; the agent starts with the next boot"
        return 0
    fi
    again=$changed$changed_key
    systemctl daemon-reload && systemctl --no-block "${again:+re}start" infiniservice.service
}

install_all() {
    changed_key=''
    write_settings || { say "cannot write $settings"; return 1; }
    write_key || { say "cannot write $key"; return 1; }
    install_program || return 1
    install_unit || { say "cannot install the unit"; return 1; }
    start || { say "cannot start the agent"; return 1; }
    rm -f -- "$units/multi-user.target.wants/infiniservice-install.service" \
        "$units/infiniservice-install.service" "$kept/install-linux.sh" "$kept/infiniservice"
}

# What has to be tried again at next boot: this script, with the settings already written.
leave_retry() {
    [ "$here" = "$kept" ] && return 0
    # What came through a pipe cannot be kept.
    [ -d "$here" ] || return 1
    new "$kept/install-linux.sh" && cat -- "$0" >"$temporary" && put 0700 "$kept/install-linux.sh" || return 1
    if [ -f "$here/infiniservice" ]; then
        new "$kept/infiniservice" && cat -- "$here/infiniservice" >"$temporary" &&
            put 0700 "$kept/infiniservice" || return 1
    fi
    new "$units/infiniservice-install.service" && cat >"$temporary" <<'RETRY' &&
[Unit]
Description=Installation of the Infinibay agent, tried again
Wants=network-online.target
After=network-online.target

[Service]
ExecStart=/bin/sh /var/lib/infiniservice/install-linux.sh
Restart=on-failure
RestartSec=60

[Install]
WantedBy=multi-user.target
RETRY
        put 0644 "$units/infiniservice-install.service" && want infiniservice-install.service
}

if [ -z "$best_effort" ]; then
    install_all
    exit
fi

log=$root/var/log/infiniservice-install.log
folder "$root/var/log" 2>/dev/null
if (: >>"$log") 2>/dev/null; then
    exec 2>>"$log"
fi
if ! install_all; then
    say "failed; it will be tried again at next boot"
    leave_retry || say "cannot arrange another try"
fi
exit 0
