#!/bin/sh
# The core with the oldest libraries that pyproject.toml allows, in a virtual environment of its own:
# test_oldest.sh PYTHON
set -eu
python=$1 venv=.venv-oldest
"$python" scripts/oldest.py jupyter sandbox > "$venv.pins"
if ! cmp -s "$venv.pins" "$venv/pins"; then
    rm -rf "$venv"
    sh scripts/make_venv.sh "$python" "$venv" --no-deps hypothesis
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$venv.pins" -e . \
        hypothesis pytest pytest-asyncio pytest-timeout pytest-xdist
    cp "$venv.pins" "$venv/pins"
fi
rm "$venv.pins"
exec "$venv/bin/python" -m pytest -q -n 2 tests/core tests/resilience/test_bounds.py
