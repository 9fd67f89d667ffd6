# The Python environment of this checkout, `.venv`.  Sourced after say.sh, not run.
# shellcheck shell=bash

python_ready() {
  python3 -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# What an environment made from lock file $1 depends on, as one word.
environment_key() {
  {
    sha256sum "$1" pyproject.toml scripts/bootstrap.lock
    readlink -f "$(command -v python3)"
    pwd
  } | sha256sum | cut -c 1-32
}

# environment_current LOCK: is .venv what LOCK asks for?
environment_current() {
  [[ -x .venv/bin/iceshelves && -f .venv/current/$1 && $(<".venv/current/$1") == "$(environment_key "$1")" ]]
}

# build_environment LOCK...: make .venv hold exactly the last LOCK (the others are known to be parts of it).
build_environment() {
  local lock=${*: -1} uv=.venv/uv/bin/uv each
  rm -rf .venv/current
  [[ -x .venv/bin/python ]] && .venv/bin/python -c '' 2>/dev/null || python3 -m venv --clear .venv
  # uv lives beside the environment, not in it, so that "exactly what the lock says" is true
  [[ -x $uv && $(<.venv/uv/key) == "$(sha256sum <scripts/bootstrap.lock)" ]] || {
    rm -rf .venv/uv
    .venv/bin/python -m ensurepip --default-pip >/dev/null
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --target .venv/uv -r scripts/bootstrap.lock
    # uv does not read pip's configuration; this machine's index, if it has one of its own, counts for both
    .venv/bin/python -m pip config get global.index-url >.venv/uv/index 2>/dev/null || true
    sha256sum <scripts/bootstrap.lock >.venv/uv/key
  }
  if [[ -s .venv/uv/index ]]; then UV_DEFAULT_INDEX=$(<.venv/uv/index) && export UV_DEFAULT_INDEX; fi
  export UV_SYSTEM_CERTS=true VIRTUAL_ENV=$PWD/.venv
  "$uv" pip sync --quiet --require-hashes --strict "$lock"
  "$uv" pip install --quiet --no-deps --editable .
  mkdir .venv/current
  for each in "$@"; do environment_key "$each" >".venv/current/$each"; done
}
