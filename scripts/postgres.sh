#!/usr/bin/env bash
# A PostgreSQL of one's own, for trying things out, apart from every other one on this machine:
#   ./scripts/postgres.sh start DIR    makes it in DIR if it is not there yet, and starts it
#   ./scripts/postgres.sh stop DIR     stops it; what it holds stays in DIR
# It is reached through the Unix socket in DIR, by whoever may enter DIR, as user and database postgres.
set -euo pipefail
if [[ $# != 2 || ! $1 =~ ^(start|stop)$ ]]; then
    sed -n '2,5s/^# //p' "$0" >&2
    exit 2
fi
dir=$(realpath -m "$2")
source "$(dirname "${BASH_SOURCE[0]}")/prepare.sh"

# PostgreSQL does not run as root.
as_owner=()
if [[ $EUID == 0 ]]; then
    as_owner=(runuser -u postgres --)
fi
bin=$(postgres_server_dir)
control() {
    "${as_owner[@]}" "$bin/pg_ctl" --pgdata "$dir/data" --silent --wait "$@"
}

if [[ $1 == stop ]]; then
    control stop --mode fast
    exit
fi
if [[ ! -d $dir/data ]]; then
    mkdir -p "$dir"
    chmod 700 "$dir"
    if [[ $EUID == 0 ]]; then
        chown postgres "$dir"
        "${as_owner[@]}" test -w "$dir" || stop "the user postgres, who has to run the server for root, can't enter $dir: choose" \
            "a directory elsewhere, in /tmp say"
    fi
    "${as_owner[@]}" "$bin/initdb" --pgdata "$dir/data" --username postgres --auth trust --encoding UTF8 --locale C >/dev/null
fi
control start --log "$dir/log" --options "-k '$dir' -c listen_addresses=''"
echo "PostgreSQL runs: psql -h $dir -U postgres"
