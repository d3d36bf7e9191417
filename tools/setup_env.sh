# Sourced by the scripts in the repository's root: makes .venv, installs the package into it, activates it.
# PYTHON names the interpreter to start from (3.10 or newer). Set BCNET_NO_VENV=1 to use the current environment.
if [ -z "${BCNET_NO_VENV:-}" ]; then
  stamp=.venv/.installed-from
  wanted="$(pwd) $(cksum pyproject.toml setup.py)"
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "Setting up .venv (torch and its CUDA libraries are about 5 GB)"
    "${PYTHON:-python3}" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
    echo "$wanted" > "$stamp"
  fi
  # shellcheck disable=SC1091
  source .venv/bin/activate
fi
