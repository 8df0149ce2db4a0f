#!/bin/sh
# The Airflow unit suite on the oldest supported Airflow, in a virtual environment of its own:
# test_airflow_min.sh PYTHON
set -eu
python=$1 venv=.venv-airflow-min
if [ ! -f "$venv/.ready" ]; then
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        -c constraints-airflow-min.txt -e ".[airflow,sandbox]" apache-airflow==3.0.6 \
        pytest pytest-asyncio pytest-timeout
    touch "$venv/.ready"
fi
exec "$venv/bin/python" -m pytest -q tests/airflow
