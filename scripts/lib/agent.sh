# shellcheck shell=bash
# The agent for guests: one static binary, so that it runs in any Linux, and the tree it is handed
# out from. Sourced, never run.

# shellcheck source=scripts/lib/cargo.sh
. "$LIB/cargo.sh"

# No other Rust target is needed than the host's own; naming it keeps the static flag away from
# build scripts and procedural macros, which must stay dynamic.
AGENT_TARGET=x86_64-unknown-linux-gnu

# build_agent VARIABLE: builds the agent and puts the binary's path into VARIABLE.
#
# INFINIBAY_AGENT names a ready binary to use instead.
build_agent() {
    local -n agent_path=$1
    if [ -n "${INFINIBAY_AGENT:-}" ]; then
        [ -f "$INFINIBAY_AGENT" ] || die "INFINIBAY_AGENT names no file: $INFINIBAY_AGENT"
        agent_path=$INFINIBAY_AGENT
    else
        say "building the agent"
        RUSTFLAGS='-C target-feature=+crt-static' \
            cargo_build -p guest-agent --profile agent --target "$AGENT_TARGET"
        agent_path=$TARGET_DIR/$AGENT_TARGET/agent/infiniservice
    fi
    if readelf -ld "$agent_path" | grep -E 'INTERP|NEEDED' >/dev/null; then
        die "$agent_path is not a static binary and would not run in every guest"
    fi
}

# lay_out_agent BASE BINARY: the tree below INFINIBAY_BASE_DIR that guests are served from.
lay_out_agent() {
    local from=$REPO/crates/guest-agent/install to=$1/infiniservice
    install -d -m 0755 -- "$to/binaries/linux" "$to/install"
    replace_file 0755 "$2" "$to/binaries/linux/infiniservice"
    replace_file 0755 "$from/install-linux.sh" "$to/install/install-linux.sh"
    replace_file 0644 "$from/install-windows.ps1" "$to/install/install-windows.ps1"
    replace_file 0644 "$from/infiniservice.service" "$to/install/infiniservice.service"
}

# replace_file MODE FROM TO: TO is whole at every moment; a reader has the old one or the new.
replace_file() {
    # Another script may be replacing it at this moment.
    install -m "$1" -- "$2" "$3.part.$$"
    mv -f -- "$3.part.$$" "$3"
}
