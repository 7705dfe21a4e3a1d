#!/usr/bin/env bash
# What `make demo` runs: two real Vaults on this machine, some secrets, and vsync between them. No Consul: the sync
# info is kept in a folder. Everything is in one temporary folder and is gone at the end.
#
#   examples/demo.sh VSYNC BAO      the two programs
set -euo pipefail
vsync=$(realpath "$1") bao=$(realpath "$2")

folder=$(mktemp -d)
servers=()
finish() {
    for server in "${servers[@]}"; do kill "$server" 2>/dev/null && wait "$server" 2>/dev/null || true; done
    rm -rf "$folder"
}
trap finish EXIT
cd "$folder"

bold='' plain=''
if [ -t 1 ]; then bold=$'\033[1m' plain=$'\033[0m'; fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
sync() {
    echo "$ vsync $*"
    "$vsync" "$@" --log.level warn
}
origin() { BAO_ADDR=$origin_address BAO_TOKEN=demo "$bao" "$@"; }
destination() { BAO_ADDR=$destination_address BAO_TOKEN=demo "$bao" "$@"; }

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

start_vault() { # name, port
    HOME=$folder "$bao" server -dev -dev-root-token-id=demo -dev-no-store-token \
        -dev-listen-address="127.0.0.1:$2" >"$1.log" 2>&1 &
    servers+=($!)
    for _ in $(seq 100); do
        if BAO_ADDR=http://127.0.0.1:$2 "$bao" status >/dev/null 2>&1; then return; fi
        kill -0 "${servers[-1]}" 2>/dev/null || break
        sleep 0.1
    done
    echo "the $1 did not start:" >&2
    tail -5 "$1.log" >&2
    exit 1
}

list() { # what is at the destination, with values
    local name
    for name in $(destination kv list -mount=secret -format=json shop | tr -d '[]",'); do
        if value=$(destination kv get -mount=secret -field=password "shop/$name" 2>/dev/null); then
            printf '  shop/%-10s %s\n' "$name" "$value"
        else
            printf '  shop/%-10s (deleted; `kv undelete` brings it back)\n' "$name"
        fi
    done
}

say "Two Vaults: the origin, and a destination that should hold the same"
origin_port=$(free_port) destination_port=$(free_port)
origin_address=http://127.0.0.1:$origin_port destination_address=http://127.0.0.1:$destination_port
start_vault origin "$origin_port"
start_vault destination "$destination_port"
echo "  origin      $origin_address"
echo "  destination $destination_address"

say "Secrets are written to the origin"
for name in database queue mailer cache; do
    origin kv put -mount=secret "shop/$name" "password=$name-one" >/dev/null
    echo "  shop/$name"
done

cat >vsync.json <<JSON
{
  "origin": {
    "vault": { "address": "$origin_address", "token": "demo" },
    "file": { "path": "sync-info" },
    "mounts": ["secret/"]
  },
  "destinations": [
    {
      "name": "eu-west-1",
      "vault": { "address": "$destination_address", "token": "demo" },
      "file": { "path": "sync-info" }
    }
  ]
}
JSON
chmod 600 vsync.json
say "The configuration, vsync.json"
cat vsync.json

say "The first sync"
sync --once
echo "At the destination now:"
list

say "At the origin one secret changes, one is deleted, one is new"
origin kv put -mount=secret shop/database password=database-two >/dev/null && echo "  shop/database changed"
origin kv delete -mount=secret shop/cache >/dev/null && echo "  shop/cache deleted"
origin kv put -mount=secret shop/search password=search-one >/dev/null && echo "  shop/search added"

say "What would be done about it"
sync --dry-run

say "The second sync copies only the difference"
sync --once
echo "At the destination now:"
list

say "And when there is nothing to do, nothing is read but metadata, and nothing is written"
sync --once

cat <<'TXT'

That was it. Where to look next:
  README.md              a first real configuration, with the policies that it needs
  examples/*.json        transforms, a loop back, sync info in a folder or in Consul
  vsync help             commands and flags; `vsync help config` lists every key (the program: target/debug/vsync)
TXT
