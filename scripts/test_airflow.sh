#!/bin/sh
# The Airflow suites, unit and end to end, on another version of Airflow, in a virtual environment
# of its own: test_airflow.sh PYTHON VERSION CONSTRAINTS [arguments of pytest]
set -eu
python=$1 version=$2 constraints=$3 venv=.venv-airflow-$2
shift 3
if [ ! -f "$venv/.ready" ]; then
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        -c "$constraints" -e ".[airflow,s3,sandbox,tables]" "apache-airflow==$version" \
        flask flask-cors "moto[s3]" pytest pytest-asyncio pytest-timeout
    touch "$venv/.ready"
fi
exec "$venv/bin/python" -m pytest -q tests/airflow tests/integration/airflow "$@"
