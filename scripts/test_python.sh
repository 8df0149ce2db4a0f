#!/bin/sh
# The core, the commands, the notebook and the sandbox on another Python: test_python.sh PYTHON
set -eu
python=$1
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
venv=.venv-python-$version
if [ ! -f "$venv/.ready" ]; then
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt \
        -e ".[jupyter,s3,sandbox,tables]" hypothesis matplotlib nbformat numpy polars \
        pytest pytest-asyncio pytest-timeout pytest-xdist
    touch "$venv/.ready"
fi
exec "$venv/bin/python" -m pytest -q -n 2 -m "not slow and not thorough and not exhaustive" \
    tests/core tests/commands tests/jupyter tests/sandbox
