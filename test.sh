#!/usr/bin/env bash
# Set-up and the tests; arguments go to pytest. GPU and detectron2 tests are skipped, with a reason, where those are absent.
set -euo pipefail
cd "$(dirname "$0")"
source tools/setup_env.sh
# One worker per core, one thread each: small models gain nothing from more.
OMP_NUM_THREADS=1 python -m pytest -n "${TEST_WORKERS:-auto}" --dist worksteal "$@"
