#!/bin/sh
# Whether the edge answers /health with 200. curl is in the official image, netcat in ours.
set -u
address=${BIND_ADDRESS:-127.0.0.1}
[ "$address" != 0.0.0.0 ] || address=127.0.0.1
if command -v curl >/dev/null; then
    exec curl --fail --silent --output /dev/null --max-time 3 "http://$address:${PORT:-80}/health"
fi
answer=$(printf 'GET /health HTTP/1.0\r\n\r\n' | nc.openbsd -w 3 "$address" "${PORT:-80}") || exit 1
case $answer in "HTTP/1."?" 200 "*) exit 0 ;; esac
exit 1
