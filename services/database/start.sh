#!/bin/sh
# Start the shop's database: make the cluster if there is none, run its script, serve. The arguments are PostgreSQL's.
#
#   PGDATA           where the cluster is: a volume of this user's
#   DATABASE_NAME    the database that is made if there is none
#   DATABASE_SCRIPT  a file for psql, run in that database at each start before anybody can connect; safe to run again
#   RUN_DIRECTORY    where the server's socket lies (/run/shop: a tmpfs of this user's), by which its health is asked
set -eu
umask 077
run=${RUN_DIRECTORY:-/run/shop}
# Who asks the server's socket hears nothing of a server that only runs the script.
early=$run/early

# A cluster gets its name when it is whole: initdb takes a second and may be killed. PGDATA itself may be where a volume
# is mounted, which cannot be renamed; so the cluster is a directory in it.
cluster=$PGDATA/cluster
if [ ! -f "$cluster/PG_VERSION" ]; then
    rm -rf "$cluster.new"
    initdb --pgdata "$cluster.new" --username postgres --encoding UTF8 --locale C.UTF-8 \
        --auth-local peer --auth-host reject --no-sync --no-instructions >/dev/null
    sync --file-system "$cluster.new"
    mv "$cluster.new" "$cluster"
fi
export PGDATA="$cluster"

ask() { psql --no-psqlrc --quiet --tuples-only --no-align --set ON_ERROR_STOP=1 --host "$early" --username postgres "$@"; }

if [ -n "${DATABASE_SCRIPT:-}" ]; then
    : "${DATABASE_NAME:?it is not set; it names the database that DATABASE_SCRIPT is run in}"
    # Reached by a socket alone, and by nobody but this user.
    mkdir -p "$early"
    pg_ctl start --silent --wait --options "-c listen_addresses='' -c unix_socket_directories='$early'"
    known=$(ask --dbname postgres --command "SELECT count(*) FROM pg_database WHERE datname = '$DATABASE_NAME'")
    [ "$known" = 1 ] || ask --dbname postgres --command "CREATE DATABASE \"$DATABASE_NAME\""
    ask --dbname "$DATABASE_NAME" --file "$DATABASE_SCRIPT"
    pg_ctl stop --silent --wait --mode fast
fi
exec postgres -c unix_socket_directories="$run" "$@"
