#!/usr/bin/env bash
# Adds occluder masks to a COCO json: ./process.sh --input A.json --output B.json [--format {rle,polygon}] [--workers N]
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
if [ -f "$root/.venv/bin/activate" ]; then
    # shellcheck disable=SC1091
    source "$root/.venv/bin/activate"
fi
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec python -m bcnet data annotate "$@"
