#!/usr/bin/env bash
# stand-in-base.sh TAG: create a base image from Debian's archive, without a registry.
#
# It replaces Ubuntu 24.04 by bookworm, which has Python 3.11, with the C and C++ libraries of trixie,
# because wheels for current distributions need newer ones than bookworm has.
# Needs root, debootstrap and a running engine. Does nothing if TAG exists.
set -euo pipefail

tag=${1:?usage: stand-in-base.sh TAG}
if docker image inspect "$tag" > /dev/null 2>&1; then
    echo "$tag exists already."
    exit 0
fi

root=$(mktemp -d)
chmod 755 "$root" # it becomes the root of every container
trap 'rm -rf --one-file-system "$root"' EXIT

echo "Creating $tag from Debian's archive, about a minute."
debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv bookworm "$root" \
    > "$root.log" || { tail -n 20 "$root.log" >&2; rm -f "$root.log"; exit 1; }
rm -f "$root.log"

main=$root/etc/apt/sources.list
newer=$root/etc/apt/sources.list.d/newer.list
sed 's/ bookworm / trixie /' "$main" > "$newer"
chroot "$root" apt-get --quiet=2 update
DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get --quiet=2 --yes --no-install-recommends \
    -o Dpkg::Use-Pty=0 install libc6/trixie libc-bin/trixie libstdc++6/trixie > /dev/null
rm "$newer"
chroot "$root" apt-get clean
rm -rf "$root"/var/lib/apt/lists/*

tar --directory "$root" --create --one-file-system . | docker import - "$tag" > /dev/null
echo "$tag is ready."
