#!/bin/sh
# Runs what is in the process of the test; arguments go to pytest.
set -eu
cd "$(dirname "$0")/.."

# Left to `make test`: the examples in the documents, and what needs a database, Redis, processes of its own or whole pages.
left_out="test_documents.py admin/pages cli/test_commands.py cli/test_keys.py coordination/test_admissions.py
    coordination/test_client.py coordination/test_shared_store.py gateway/conversion gateway/test_images.py
    records/test_database.py records/test_reports.py server/test_startup.py server/test_watchdog.py"
# shellcheck disable=SC2046 # several words
exec "${BIN:-.venv/bin}/python" -m tests.processes 5 tests/unit tests/app tests/test_architecture.py \
    -k 'not postgresql and not redis' $(printf -- '--ignore tests/unit/%s ' $left_out) "$@"
