# shellcheck shell=bash
# Sourced by the scripts in the repository's root: makes .venv, installs the package into it, activates it.
# PYTHON names the interpreter to start from (3.10 or newer). Set BCNET_NO_VENV=1 to use the current environment.
# A torch that is in .venv already is kept, its CPU build too: see "Install" in docs/index.md.
if [ -z "${BCNET_NO_VENV:-}" ]; then
  stamp=.venv/.installed-from
  wanted="$(pwd) $(cksum pyproject.toml setup.py)"
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    started=$SECONDS
    echo "[1/2] Making .venv with $("${PYTHON:-python3}" --version)"
    "${PYTHON:-python3}" -m venv .venv
    echo "[2/2] Installing bcnet and what it needs; torch and its CUDA libraries are about 5 GB"
    .venv/bin/python -m pip install --disable-pip-version-check --editable ".[dev]"
    echo "$wanted" > "$stamp"
    echo "Set up in $((SECONDS - started)) seconds"
  fi
  # shellcheck disable=SC1091
  source .venv/bin/activate
fi
