#!/bin/sh
# What the cluster test needs beyond the rest: Redis and PostgreSQL from Debian, and Airflow's
# Celery executor (whose provider does not work with Celery 5.7): need_cluster.sh PYTHON
set -eu
missing=""
command -v redis-server >/dev/null 2>&1 || missing="redis-server"
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        apt-get update -q
        # shellcheck disable=SC2086
        DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
    else
        echo "The cluster test is skipped without: sudo apt-get install $missing" >&2
    fi
fi
"$1" -m pip install --quiet --disable-pip-version-check -c constraints.txt \
    apache-airflow-providers-celery "celery<5.7" "kombu<5.7" psycopg2-binary asyncpg redis tzlocal
