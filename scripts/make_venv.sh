#!/bin/sh
# Makes the virtual environment: make_venv.sh PYTHON FOLDER. Names and versions come from
# constraints.txt; where from is pip's own configuration.
set -eu
python=$1 venv=$2
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "kling-integrations needs Python 3.11 or newer; say make PYTHON=python3.12 (this is $("$python" -V))." >&2
    exit 1
}
if [ ! -x "$venv/bin/python" ]; then
    "$python" -m venv "$venv" 2>/dev/null || {
        # Debian's python3 comes without ensurepip; virtualenv brings its own pip.
        rm -rf "$venv"
        "$python" -m pip install --quiet --target "$venv.tool" virtualenv
        PYTHONPATH="$venv.tool" "$python" -m virtualenv --quiet "$venv"
        rm -rf "$venv.tool"
    }
fi
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
