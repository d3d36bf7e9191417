#!/usr/bin/env bash
# Set-up and the main job.
#
#   bash all.sh
#       makes .venv and the embedded synthetic data set, trains the small bilayer model of configs/quick (its backbone
#       pretrained on ImageNet), evaluates it on held-out scenes and draws what it sees. Under ten minutes on two CPU
#       cores after set-up.
#
#   CONFIG=configs/fcos/fcos_imprv_R_50_FPN.yaml NUM_GPUS=2 bash all.sh [KEY VALUE ...]
#       trains, evaluates and draws a config of your own. An interrupted run goes on where it stopped.
set -euo pipefail
cd "$(dirname "$0")"
source tools/setup_env.sh

CONFIG=${CONFIG:-configs/quick/bcnet_fcos_lite0.yaml}
NUM_GPUS=${NUM_GPUS:-1}
started=$SECONDS

step() {
  printf '\n== %s (%d s)\n' "$*" "$((SECONDS - started))"
}

if [[ "$CONFIG" == configs/quick/* ]]; then
  for split in "train ${TRAIN_SCENES:-1200}" "val ${VAL_SCENES:-100}"; do
    read -r name count <<< "$split"
    step "1/4 Synthetic scenes: $count for $name"
    python -m bcnet data scenes --output datasets/synthetic --split "$name" --count "$count" --seed 1 --difficulty easy
  done
fi

step "2/4 Training $CONFIG, then 3/4 evaluating it; Ctrl-C is safe, the same command goes on"
python -m bcnet train --config-file "$CONFIG" --num-gpus "$NUM_GPUS" --resume "$@"
OUTPUT=$(python -c 'import sys; from bcnet.config import load_config; print(load_config(sys.argv[1], sys.argv[2:]).OUTPUT_DIR)' "$CONFIG" "$@")
step "4/4 Drawing what it finds in 12 images"
python -m bcnet draw --config-file "$CONFIG" --weights "$OUTPUT/model_final.pth" \
  --output "$OUTPUT/pictures" --max-images 12 "$@"

cat <<SUMMARY

Done in $((SECONDS - started)) seconds (without set-up).
  model      $OUTPUT/model_final.pth
  metrics    $OUTPUT/inference/
  log        $OUTPUT/log.txt, $OUTPUT/metrics.json, tensorboard --logdir $OUTPUT
  pictures   $OUTPUT/pictures/
SUMMARY
