#!/usr/bin/env bash
# Draws what a trained model finds, with both layers and the heat maps: bash visualize.sh [KEY VALUE ...]
# Set the variables here or in front of the command. By default they are what all.sh makes.
set -euo pipefail
cd "$(dirname "$0")"

CONFIG=${CONFIG:-configs/quick/bcnet_fcos_lite0.yaml}
WEIGHTS=${WEIGHTS:-output/quick/model_final.pth}
INPUT=${INPUT:-}                 # an image, a folder, a pattern or a data set; empty: DATASETS.TEST of the config
OUTPUT=${OUTPUT:-output/quick/pictures}
SCORE_THRESHOLD=${SCORE_THRESHOLD:-0.5}
MAX_IMAGES=${MAX_IMAGES:-20}

if [[ ! -f "$WEIGHTS" ]]; then
  echo "no weights at $WEIGHTS: run 'bash all.sh' first, or set WEIGHTS and CONFIG" >&2
  exit 1
fi
if [[ -z "${BCNET_NO_VENV:-}" && -f .venv/bin/activate ]]; then
  # shellcheck disable=SC1091
  source .venv/bin/activate
fi
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
exec python -m bcnet draw --config-file "$CONFIG" --weights "$WEIGHTS" ${INPUT:+--input "$INPUT"} \
  --output "$OUTPUT" --score-threshold "$SCORE_THRESHOLD" --max-images "$MAX_IMAGES" "$@"
