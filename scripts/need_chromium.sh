#!/bin/sh
# The browser tests drive Debian's chromium; it is installed here when it is missing.
set -eu
for name in chromium chromium-browser google-chrome; do
    command -v "$name" >/dev/null 2>&1 && exit 0
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends chromium
else
    echo "The browser tests need chromium: sudo apt-get install chromium" >&2
    exit 1
fi
