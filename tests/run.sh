#!/bin/sh
# Runs every test, or those that the arguments name; fetches the programs that some of them need where it may.
set -eu
cd "$(dirname "$0")/.."
BIN=${BIN:-.venv/bin}

missing=""
for pair in nginx:nginx-light systemd-analyze:systemd logrotate:logrotate shellcheck:shellcheck openssl:openssl redis-server:redis-server pg_ctlcluster:postgresql promtool:prometheus chromium-headless-shell:chromium-headless-shell; do
    PATH="$PATH:/usr/sbin" command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
done
if [ -n "$missing" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing for the tests:$missing"
    export DEBIAN_FRONTEND=noninteractive
    if { apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing; } >/tmp/ollama-proxy-apt.log 2>&1; then
        :
    else
        cat /tmp/ollama-proxy-apt.log
    fi
fi
stamp=tests/node/node_modules/.package-lock.json
if command -v npm >/dev/null 2>&1 && { [ ! -e $stamp ] || [ tests/node/package-lock.json -nt $stamp ]; }; then
    (cd tests/node && npm ci --silent)
fi
# Its packages would not fit beside the gateway's own.
second=$BIN/../second
if [ -n "${LONG:-}" ] && { [ ! -e "$second/.installed" ] || [ tests/second/requirements.txt -nt "$second/.installed" ]; }; then
    if "$BIN/python" -m venv --clear --without-pip "$second" && "$BIN/python" -m pip --python "$second/bin/python" install \
        --quiet --no-compile --require-hashes --only-binary :all: -r tests/second/requirements.txt; then
        touch "$second/.installed"
    else
        rm -rf "$second"
    fi
fi
# In random order, by a seed that each run prints; SEED repeats that order.
run() {
    "$BIN/python" -m tests.processes "$@"
}
if [ $# != 0 ]; then
    run 3 "$@"
    exit
fi
# Coding assistants and frameworks: those that are quick to install, or all.
if [ -z "${LONG:-}" ]; then chosen=--chosen; else chosen=; fi
"$BIN/python" -m tests.clients.install $chosen
# What measures has the machine for itself. Of the rest five run at a time: many wait for something, not for the processor.
status=0
if [ -n "${LONG:-}" ]; then run 1 tests/soak || status=$?; fi
run 1 tests/timing || status=$?
run 5 tests --ignore tests/soak --ignore tests/timing || status=$?
exit $status
