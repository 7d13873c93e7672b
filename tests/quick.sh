#!/bin/sh
# Runs what is in the process of the test; arguments go to pytest.
set -eu
cd "$(dirname "$0")/.."

# Left to `make test`: the examples in the documents, LiteLLM, and what needs a database, Redis, processes of its own or whole pages.
left_out="app/test_documents.py app/test_image_formats.py unit/test_documents.py unit/admin/pages unit/cli/test_commands.py
    unit/cli/test_keys.py unit/coordination/test_admissions.py unit/coordination/test_client.py
    unit/coordination/test_service.py unit/coordination/test_shared_store.py unit/gateway/conversion
    unit/gateway/test_images.py unit/records/test_database.py unit/records/test_reports.py unit/records/test_service.py
    unit/server/test_startup.py unit/server/test_watchdog.py unit/upstreams/litellm"
# shellcheck disable=SC2046,SC2086 # several words
exec "${BIN:-.venv/bin}/python" -m tests.processes 5 tests/unit tests/app tests/test_architecture.py \
    -k 'not postgresql and not redis' $(printf -- '--ignore tests/%s ' $left_out) "$@"
