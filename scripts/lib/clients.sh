# shellcheck shell=bash
# Clients of the ecosystems that front ends are written in, for the tests: npm's own socket.io-client and
# graphql-ws, as tests/clients/package-lock.json fixes them; PyPI's ariadne-codegen, which generates a client,
# and schemathesis, which fuzzes, as tests/clients/requirements.txt does. Sourced, never run.

# need_clients DIR: lays them out in DIR. Does nothing, and asks no server, when all is there.
need_clients() {
    need_npm_clients "$1"
    need_python_clients "$1/python"
}

# need_npm_clients DIR: DIR/node_modules, with what package-lock.json says.
need_npm_clients() {
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

# need_python_clients VENV: with what requirements.txt says, and nothing that it does not.
need_python_clients() {
    local venv=$1 wanted=$REPO/tests/clients/requirements.txt
    cmp -s -- "$wanted" "$venv/made-from" && return
    say "fetching the clients that tests speak to the API with (PyPI)"
    rm -rf --one-file-system -- "$venv"
    python3 -m venv -- "$venv" >&2 || die "python3 could not make $venv; what it said is above"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$wanted" >&2 ||
        die "pip could not install what $wanted names; what it said is above"
    "$venv/bin/pip" check --disable-pip-version-check >&2 ||
        die "$wanted does not name all that it takes; what pip said is above"
    cp -- "$wanted" "$venv/made-from"
}
