#!/bin/sh
# The README's first shell commands from a plain `pip install` of the built wheel, with no extras:
# test_plain_install.sh PYTHON. Nothing of this checkout can be imported meanwhile.
set -eu
python=$1
work=$(mktemp -d)
sandbox=
trap '[ -z "$sandbox" ] || kill "$sandbox" 2>/dev/null || true; rm -rf "$work"' EXIT

fail() { echo "FAILED: $1" >&2; exit 1; }
says() { grep -qF -- "$1" "$2" || { cat "$2" >&2; fail "no '$1' in the output above"; }; }
is_video() { [ "$(dd if="$1" bs=1 skip=4 count=4 2>/dev/null)" = ftyp ] || fail "$1 is no MP4"; }

"$python" -m pip wheel --quiet --disable-pip-version-check --no-deps -w "$work/wheel" .
"$python" -m venv --without-pip "$work/venv"
"$python" -m pip --python "$work/venv/bin/python" install --quiet --disable-pip-version-check \
    -c constraints.txt "$work"/wheel/*.whl
for package in av PIL IPython airflow; do
    if "$work/venv/bin/python" -c "import $package" 2>/dev/null; then fail "$package is installed"; fi
done

unset AIML_API_KEY AIMLAPI_API_KEY AIMLAPI_KEY AIML_BASE_URL PYTHONPATH
export KLING_HOME="$work/home"
PATH="$work/venv/bin:$PATH"
mkdir "$work/films"
cd "$work/films"

echo '$ kling demo'
kling demo > demo.out 2> demo.err || { cat demo.err; fail "kling demo"; }
is_video "$(cat demo.out)"
says "1 paid in all" demo.err
[ "$(grep -cF "pip install 'kling-integrations[sandbox]'" demo.err)" = 1 ] || fail "one note, not $(cat demo.err)"

echo '$ kling sandbox'
kling sandbox --port 0 --speed 300 > sandbox.out 2>&1 &
sandbox=$!
until grep -q 'Stop: Ctrl-C' sandbox.out; do
    kill -0 "$sandbox" 2>/dev/null || { cat sandbox.out; fail "kling sandbox"; }
    sleep 0.1
done
AIML_BASE_URL=$(sed -n 's/.*export AIML_BASE_URL=//p' sandbox.out)
export AIML_BASE_URL

echo '$ kling generate …'
raccoon="A white raccoon in a forest"
kling generate "$raccoon" -d 5 -a 16:9 -o raccoon.mp4 > first.out 2> first.err || { cat first.err; fail generate; }
is_video raccoon.mp4
kling generate "$raccoon" -d 5 -a 16:9 > again.out 2> again.err || { cat again.err; fail "generate, again"; }
is_video "$(cat again.out)"
path=$(kling generate "A red fox" --max-cost 0.50 2> cost.err) || { cat cost.err; fail "--max-cost"; }
is_video "$path"
kling history > history.out
says "raccoon" history.out
# What needs pictures says what to install, before anything is paid.
if kling extend last "It jumps over a log" 2> extend.err; then fail "extend without PyAV"; fi
says "pip install 'kling-integrations[" extend.err

kill -TERM "$sandbox"
wait "$sandbox" || fail "the sandbox ended with $?"
sandbox=
says "2 submits, 2 generations" sandbox.out
[ "$(grep -cF "ready-made" sandbox.out)" = 1 ] || { cat sandbox.out; fail "one note in the sandbox's log"; }
echo "Plain install: the README's first commands work."
