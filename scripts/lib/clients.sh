# shellcheck shell=bash
# Clients of the ecosystems that front ends are written in, for the tests: npm's own socket.io-client and
# graphql-ws, as tests/clients/package-lock.json fixes them. Sourced, never run.

# need_clients DIR: lays them out in DIR/node_modules. Does nothing, and asks no server, when all is there.
need_clients() {
    local dir=$1 from=$REPO/tests/clients name made
    cmp -s -- "$from/package-lock.json" "$dir/made-from" && return
    say "fetching the clients that tests speak to the API with (npm)"
    command -v npm >/dev/null || die "npm is not in PATH; install nodejs and npm"
    install -d -m 0755 -- "$dir"
    rm -f -- "$dir/made-from"
    for name in package.json package-lock.json .npmrc; do
        cp -- "$from/$name" "$dir/$name"
    done
    made=0
    (cd -- "$dir" && npm ci --ignore-scripts --no-audit --no-fund) >&2 || made=$?
    [ "$made" -eq 0 ] || die "npm could not install what $from/package-lock.json names; what it said is above"
    cp -- "$from/package-lock.json" "$dir/made-from"
}
