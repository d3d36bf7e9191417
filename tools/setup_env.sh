# shellcheck shell=bash
# Sourced by the scripts in the repository's root: makes .venv, installs the package into it, activates it.
# PYTHON names the interpreter to start from (3.10 or newer). Set BCNET_NO_VENV=1 to use the current environment.
# A torch that is in .venv already is kept, its CPU build too: see "Install" in docs/index.md.
if [ -z "${BCNET_NO_VENV:-}" ]; then
  stamp=.venv/.installed-from
  wanted="$(pwd) $(cksum pyproject.toml setup.py)"
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    started=$SECONDS
    echo "Set-up, once; it is skipped from the next time on."
    echo "[1/3] Making the environment .venv with $("${PYTHON:-python3}" --version)"
    "${PYTHON:-python3}" -m venv .venv
    if .venv/bin/python -c "import torch" 2>/dev/null; then
      echo "[2/3] Installing bcnet and what it needs; torch is there already. A few minutes at most"
    else
      echo "[2/3] Installing bcnet and what it needs, torch with its CUDA libraries among it: about 5 GB, some minutes"
      echo "      (without an NVIDIA GPU the CPU build is 200 MB: stop with Ctrl-C, and see \"Install\" in docs/index.md)"
    fi
    .venv/bin/python -m pip install --disable-pip-version-check --editable ".[dev]"
    # Without its requirements: opencv-python needs libGL, and opencv-python-headless is there.
    .venv/bin/python -m pip install --disable-pip-version-check --no-deps "trackers>=2.6"
    echo "[3/3] Checking that it starts"
    .venv/bin/python -m bcnet --version
    echo "$wanted" > "$stamp"
    echo "Set up in $((SECONDS - started)) seconds"
  else
    echo "Using the environment .venv"
  fi
  # shellcheck disable=SC1091
  source .venv/bin/activate
fi
