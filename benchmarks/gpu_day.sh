#!/usr/bin/env bash
# Everything that only a GPU can answer, in at most 25 minutes: tests, benchmark rows, a short study.
#
#   bash benchmarks/gpu_day.sh OUT              on one GPU
#   bash benchmarks/gpu_day.sh OUT --dry-run    the same steps on the CPU in tiny form
#
# OUT gets gpu_day.json, gpu_day.md and one log for each step, also if a step fails or runs out of its time.
set -euo pipefail
caller=$PWD
cd "$(dirname "$0")/.."
source tools/setup_env.sh
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
exec python -m benchmarks.gpu_day --relative-to "$caller" "$@"
