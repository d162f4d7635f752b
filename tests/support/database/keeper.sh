# Keeps one PostgreSQL cluster for tests: makes it, says "ready" or what went wrong, ends it and
# removes its directory when nobody holds a shared lock on users.lock any more.
# Arguments: its directory, PostgreSQL's binaries, a port, the user to run as (or nothing).
dir=$1 bin=$2 port=$3 as=$4

# Takes the place of the shell that calls it.
run() {
    if [ -n "$as" ]; then
        exec setpriv --reuid "$as" --regid "$as" --init-groups --pdeathsig QUIT "$@"
    else
        exec setpriv --pdeathsig QUIT "$@"
    fi
}

give_up() {
    echo "$1"
    tail -n 20 "$dir/log" 2>/dev/null
    rm -rf "$dir"
    exit 1
}

# Held by this shell and all it starts: whoever can take it knows that nobody is left.
exec 8<>"$dir/alive.lock"
flock -x -n 8 || give_up "somebody else keeps this cluster"

[ -z "$as" ] || chown "$as" "$dir" || give_up "chown failed"
(run "$bin/initdb" --no-sync --no-instructions --auth trust --encoding UTF8 --locale C \
    --username postgres -D "$dir/data" >"$dir/log" 2>&1) || give_up "initdb failed"

cat >>"$dir/data/postgresql.conf" <<CONF || give_up "writing postgresql.conf failed"
listen_addresses = '127.0.0.1'
unix_socket_directories = '$dir'
port = $port
max_connections = 400
fsync = off
synchronous_commit = off
full_page_writes = off
wal_level = minimal
max_wal_senders = 0
shared_buffers = 64MB
CONF

run "$bin/postgres" -D "$dir/data" >>"$dir/log" 2>&1 &
server=$!
tries=0
until "$bin/pg_isready" -q -h 127.0.0.1 -p "$port"; do
    kill -0 "$server" 2>/dev/null || give_up "the server ended"
    tries=$((tries + 1))
    [ "$tries" -lt 300 ] || { kill -QUIT "$server"; give_up "the server does not answer"; }
    sleep 0.1
done
# Another server may answer on that port, if ours could not have it.
sleep 0.1
kill -0 "$server" 2>/dev/null || give_up "the server ended"
echo ready
exec >/dev/null

exec 9<>"$dir/users.lock"
while :; do
    flock -x 9
    flock -u 9
    # The next test process may be on its way.
    sleep 3
    if flock -x -n 9; then break; fi
done
kill -QUIT "$server"
wait "$server"
rm -rf "$dir"
