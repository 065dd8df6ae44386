#!/bin/bash
# What Debian's packages leave to do for the desktop template: customize.sh ROOT WORK.
set -euo pipefail
root=${1:?}

cp -r --no-preserve=ownership "$(dirname "${BASH_SOURCE[0]}")/files/." "$root/"

# Where the desktop client starts the page with the screen from.
ln -s ../usr/share/novnc "$root"/opt/noVNC
