#!/bin/sh
# adlfs answers "nothing is there" about a container that does not exist.
#
# The service refuses to list a missing container (404, ContainerNotFound). adlfs makes an empty
# answer of it in find(), while cat_file() of the same container raises: a typing error in the name
# of a container reads as a history without entries.
#
# Seen with adlfs==2026.8.0 and azurite@3.35.0 (Microsoft's emulator) on loopback, Python 3.11,
# Node.js 20. Exit 0 while find() is empty and raises nothing.
set -eu
work=$(mktemp -d)
server=
trap 'test -z "$server" || kill "$server" 2>/dev/null; rm -rf "$work"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$work/python" "adlfs==2026.8.0"
(cd "$work" && npm install --silent --no-audit --no-fund azurite@3.35.0 >/dev/null 2>&1)
key=$(python3 -c 'import base64, os; print(base64.b64encode(os.urandom(32)).decode())')
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
AZURITE_ACCOUNTS="emulated:$key" "$work/node_modules/.bin/azurite-blob" --silent --inMemoryPersistence --skipApiVersionCheck \
    --blobHost 127.0.0.1 --blobPort "$port" >"$work/log" 2>&1 &
server=$!
cat > "$work/ask.py" <<'PY'
import socket
import sys
import time

import adlfs

port, key = sys.argv[1:]
for _ in range(100):
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", int(port))) == 0:
            break
    time.sleep(0.1)
files = adlfs.AzureBlobFileSystem(
    connection_string="DefaultEndpointsProtocol=http;AccountName=emulated;"
    f"AccountKey={key};BlobEndpoint=http://127.0.0.1:{port}/emulated;"
)
files.mkdir("there")
files.pipe_file("there/records/one.json", b"{}")
print(f"adlfs {adlfs.__version__}; there: {files.find('there/records')}")


def asked(work):
    try:
        return work()
    except Exception as error:
        return f"raises {type(error).__name__}"


found = asked(lambda: files.find("missing/records"))
print(f"missing: find() {found!r}, cat_file() {asked(lambda: files.cat_file('missing/records/x'))}")
sys.exit(0 if found == [] else 1)
PY
PYTHONPATH="$work/python" python3 "$work/ask.py" "$port" "$key"
