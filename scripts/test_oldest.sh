#!/bin/sh
# The core, the notebook and the sandbox with the oldest libraries that pyproject.toml allows, in a
# virtual environment of its own: test_oldest.sh PYTHON
set -eu
python=$1 venv=.venv-oldest
pins=$("$python" scripts/oldest.py jupyter sandbox)
if [ "$(cat "$venv/pins" 2>/dev/null)" != "$pins" ]; then
    rm -rf "$venv"
    "$python" -m venv --without-pip "$venv"
    # shellcheck disable=SC2086  # one requirement a word
    "$python" -m pip --python "$venv/bin/python" install --quiet --disable-pip-version-check \
        -e . $pins hypothesis matplotlib numpy pytest pytest-asyncio pytest-timeout pytest-xdist
    echo "$pins" > "$venv/pins"
fi
exec "$venv/bin/python" -m pytest -q -n 2 -m "not slow and not exhaustive" \
    tests/core tests/jupyter tests/sandbox tests/resilience/test_bounds.py tests/resilience/test_gateways.py
