#!/usr/bin/env bash
# Makes three successive builds of one Debian disk, as an image pipeline does every night:
#
#   first.raw    Debian 12 with kernel, ssh and cloud-init
#   second.raw   the same packages, installed anew: other times, keys, initrd, file system id and directory hash seed
#   third.raw    the same and some more packages, so that everything lies elsewhere
#
#   benches/disks.sh DIR
#
# Needs root (files keep their owners, loop devices) and a Debian mirror: MIRROR, or the default of mmdebstrap. About ten minutes and 3 GB.
# The disks are raw, sparse, 3 GiB of ext4 each. A build that is there already is kept.
set -euo pipefail

readonly DIR=${1:?usage: benches/disks.sh DIR}
readonly SUITE=bookworm
readonly SIZE=3G
readonly PACKAGES=linux-image-cloud-amd64,systemd-sysv,openssh-server,cloud-init,netplan.io,ca-certificates
readonly MORE=nginx,python3-yaml,postgresql
export PATH="$PATH:/usr/sbin:/sbin"

say() { printf 'disks: %s\n' "$*" >&2; }

if [ "$(id -u)" -ne 0 ]; then
  say "run it as root: the files of a disk belong to many users"
  exit 1
fi
missing=()
for pair in mmdebstrap:mmdebstrap mke2fs:e2fsprogs qemu-img:qemu-utils; do
  command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
  if ! command -v apt-get >/dev/null; then
    say "missing: ${missing[*]}. Install them with your package manager"
    exit 1
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

mounted=
trap '[ -z "$mounted" ] || ! mountpoint -q "$mounted" || umount "$mounted"' EXIT

build() {
  local name=$1 packages=$2
  local disk="$DIR/$name.raw" tree="$DIR/$name.tree"
  [ -e "$disk" ] && return 0
  say "building $name.raw"
  rm -rf "$disk.new" "$tree"
  if ! mmdebstrap --mode=root --variant=minbase --include="$packages" "$SUITE" "$tree" ${MIRROR:+"$MIRROR"} \
    >"$DIR/$name.log" 2>&1; then
    tail -n 20 "$DIR/$name.log" >&2
    say "could not install Debian; the whole log is $DIR/$name.log"
    exit 1
  fi
  # Neither id nor hash seed are set: mke2fs draws new ones, as it does for everybody. The files are written by the kernel's
  # file system, as an installer does: where they land depends on the seed and the time. `mke2fs -d` would put the same
  # tree into the same place each time, which no pipeline that boots an installer or mounts a disk does.
  truncate -s "$SIZE" "$disk.new"
  mke2fs -q -t ext4 -b 4096 "$disk.new"
  mounted="$DIR/$name.mounted"
  mkdir -p "$mounted"
  mount -o loop "$disk.new" "$mounted"
  cp -a "$tree/." "$mounted/"
  umount "$mounted"
  rmdir "$mounted"
  rm -rf "$tree"
  mv "$disk.new" "$disk"
  say "$name.raw: $(qemu-img info "$disk" | grep '^disk size')"
}

mkdir -p "$DIR"
build first "$PACKAGES"
build second "$PACKAGES"
build third "$PACKAGES,$MORE"
printf '%s\n' "$DIR/first.raw" "$DIR/second.raw" "$DIR/third.raw"
