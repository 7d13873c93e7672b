#!/bin/sh
# Runs what is in the process of the test, in four processes at once, and shows what each said when all are over.
# Arguments go to each pytest.
set -u
cd "$(dirname "$0")/.." || exit
BIN=${BIN:-.venv/bin}
output=$(mktemp -d)
trap 'rm -rf "$output"' EXIT

# Left to `make test`: the examples in the documents, and what needs a database, Redis, processes of its own or whole pages.
left_out="test_documents.py admin/pages cli/test_commands.py cli/test_keys.py coordination/test_admissions.py
    coordination/test_client.py coordination/test_shared_store.py gateway/conversion gateway/test_images.py
    records/test_database.py records/test_reports.py server/test_startup.py server/test_watchdog.py"
ignored=$(for each in $left_out; do printf -- '--ignore=tests/unit/%s ' "$each"; done)

run() {
    name=$1
    shift
    # shellcheck disable=SC2086 # several words
    "$BIN/python" -m pytest -q -p no:xdist -k 'not postgresql and not redis' $ignored "$@" >"$output/$name" 2>&1
}

# What waits most comes first.
run unit-1 tests/unit/[a-q]* "$@" &
first=$!
run unit-2 tests/test_architecture.py tests/unit/[r-z]* "$@" &
second=$!
run app-1 tests/app/test_[a-m]*.py "$@" &
third=$!
run app-2 tests/app/test_[n-z]*.py "$@"
status=$?
for process in $first $second $third; do
    wait "$process" || status=$?
done
cat "$output"/*
exit $status
