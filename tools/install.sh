#!/usr/bin/env bash
# Installs the programs that the black-box tests and the comparison benches drive.
#
#   tools/install.sh [clients|peers|checks|all]
#
#   clients  what `cargo test` needs: docker, containerd, skopeo, podman, buildah, jq, QEMU and what makes disks for it, tinyproxy (Debian packages), crane, regctl,
#            oras, fake-gcs-server (built by Go), openapi-python-client, moto_server (Python packages, tools/*-requirements.txt), azurite-blob (JavaScript
#            packages, tools/azurite), a kernel and a shell for the guests that are booted, and promtool (unpacked from Debian packages, not installed), and
#            the registries that people come from: docker-registry 2.8
#            (Debian), distribution 3 (built by Go)
#   peers    registries to compare with: these two, and olareg (built by Go)
#   checks   cargo-deny
#
# Everything that is no Debian, Python or JavaScript package is built from source at a pinned version, verified by Go's checksum
# database or by cargo's lock file, and lands in ${DVCR_TOOLS_DIR:-${XDG_CACHE_HOME:-~/.cache}/dvcr-tools}/bin, outside the tree.
# A second run finds everything in place and takes well under a second.
set -euo pipefail

# One line per program built by Go: command, module, version, package. A new version is a new line here and nothing else.
readonly GO_CLIENTS="
crane    github.com/google/go-containerregistry v0.22.1 github.com/google/go-containerregistry/cmd/crane
regctl   github.com/regclient/regclient         v0.11.7 github.com/regclient/regclient/cmd/regctl
oras     oras.land/oras                         v1.3.3  oras.land/oras/cmd/oras
fake-gcs-server github.com/fsouza/fake-gcs-server v1.56.1 github.com/fsouza/fake-gcs-server
"
readonly GO_PEERS="
olareg   github.com/olareg/olareg               v0.2.2  github.com/olareg/olareg/cmd/olareg
"
readonly GO_SOURCES="
registry github.com/distribution/distribution/v3 v3.1.1 github.com/distribution/distribution/v3/cmd/registry
"
# Debian packages as "command:package": the command tells whether the package is there.
readonly APT_CLIENTS="dockerd:docker.io docker:docker.io containerd:containerd ctr:containerd skopeo:skopeo podman:podman buildah:buildah jq:jq qemu-img:qemu-utils qemu-system-x86_64:qemu-system-x86 syslinux:syslinux mcopy:mtools mkfs.vfat:dosfstools zstd:zstd xz:xz-utils bzip2:bzip2 sfdisk:fdisk losetup:mount mkfs.ext4:e2fsprogs tinyproxy:tinyproxy-bin"
readonly APT_SOURCES="docker-registry:docker-registry"
readonly CARGO_DENY_VERSION=0.20.2

readonly TOOLS="${DVCR_TOOLS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/dvcr-tools}"
readonly BIN="$TOOLS/bin"
# dockerd and docker-registry live in sbin or /usr/bin, which an ordinary user's PATH may lack.
export PATH="$BIN:$PATH:/usr/sbin:/sbin"

say() { printf 'tools: %s\n' "$*" >&2; }

apt_packages() {
  local pair missing=()
  for pair in "$@"; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    say "missing: ${missing[*]}. Install them with your package manager, on Debian: apt-get install --no-install-recommends ${missing[*]}"
    return 1
  fi
  local start=$SECONDS
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  say "installed ${missing[*]} in $((SECONDS - start)) s"
}

# Some of these modules refuse `go install module@version`, so each is built from a throw-away module that requires it.
go_program() {
  local name=$1 module=$2 version=$3 package=$4
  # The stamp carries the version: a changed pin rebuilds.
  local stamp="$BIN/.$name-$version"
  [ -x "$BIN/$name" ] && [ -e "$stamp" ] && return 0
  if ! command -v go >/dev/null; then
    say "missing: Go (1.26 or newer) to build $name $version"
    return 1
  fi
  local start=$SECONDS work
  work=$(mktemp -d)
  printf 'module tools.invalid/%s\n\ngo 1.26\n\nrequire %s %s\n' "$name" "$module" "$version" >"$work/go.mod"
  if ! (cd "$work" && GOFLAGS=-mod=mod go build -trimpath -ldflags=-s -o "$work/$name" "$package" 2>"$work/log"); then
    cat "$work/log" >&2
    rm -rf "$work"
    say "building $name $version failed"
    return 1
  fi
  rm -f "$BIN/.$name-"*
  mv "$work/$name" "$BIN/$name"
  touch "$stamp"
  rm -rf "$work"
  say "built $name $version in $((SECONDS - start)) s"
}

go_programs() {
  local name module version package
  while read -r name module version package; do
    [ -z "$name" ] || go_program "$name" "$module" "$version" "$package"
  done <<<"$1"
}

# The Debian package would install and start a Prometheus server; all that is wanted is the program that checks rules.
prometheus_tool() {
  command -v promtool >/dev/null && return 0
  if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    say "missing: promtool. It is part of Prometheus"
    return 1
  fi
  local start=$SECONDS work
  work=$(mktemp -d)
  # The list of packages may be missing or old; only root can renew it.
  if ! (cd "$work" && { apt-get download -qq prometheus || { apt-get update -qq && apt-get download -qq prometheus; }; } 2>log && dpkg-deb -x prometheus_*.deb .); then
    cat "$work/log" >&2
    rm -rf "$work"
    say "downloading Debian's package prometheus failed"
    return 1
  fi
  mv "$work/usr/bin/promtool" "$BIN/promtool"
  rm -rf "$work"
  say "installed promtool in $((SECONDS - start)) s"
}

# Program, file of requirements beside this one, directory below $TOOLS of its virtual environment: Debian refuses to mix packages of pip with its own.
python_program() {
  local program=$1 requirements home="$TOOLS/$3"
  requirements="$(dirname "${BASH_SOURCE[0]}")/$2"
  # The stamp carries the pins: a changed one installs anew.
  local stamp
  stamp="$BIN/.$program-$(sha256sum "$requirements" | cut -c1-16)"
  [ -x "$BIN/$program" ] && [ -e "$stamp" ] && return 0
  # Debian has what makes such an environment in a package without a command: it is asked for by a name that no command has.
  python3 -c 'import ensurepip, venv' 2>/dev/null || apt_packages python3-with-venv:python3-venv
  local start=$SECONDS
  rm -rf "$home" "$BIN/.$program-"*
  python3 -m venv "$home"
  if ! "$home/bin/pip" install --quiet --disable-pip-version-check --no-deps --requirement "$requirements"; then
    say "installing $program failed"
    return 1
  fi
  ln -sf "$home/bin/$program" "$BIN/$program"
  touch "$stamp"
  say "installed $program in $((SECONDS - start)) s"
}

# Program, directory beside this file with the lock of its packages, directory below $TOOLS that they go to. No script of theirs runs.
node_program() {
  local program=$1 lock home="$TOOLS/$3"
  lock="$(dirname "${BASH_SOURCE[0]}")/$2"
  local stamp
  stamp="$BIN/.$program-$(sha256sum "$lock/package-lock.json" | cut -c1-16)"
  [ -x "$BIN/$program" ] && [ -e "$stamp" ] && return 0
  apt_packages node:nodejs npm:npm
  local start=$SECONDS
  rm -rf "$home" "$BIN/.$program-"*
  mkdir -p "$home"
  cp "$lock/package.json" "$lock/package-lock.json" "$home"
  if ! (cd "$home" && npm ci --loglevel=error --ignore-scripts --omit=dev --omit=optional --no-audit --no-fund >/dev/null); then
    say "installing $program failed"
    return 1
  fi
  ln -sf "$home/node_modules/.bin/$program" "$BIN/$program"
  touch "$stamp"
  say "installed $program in $((SECONDS - start)) s"
}

# A kernel and a static busybox, of which the tests make a guest: in $TOOLS/guest, the machine itself gets neither.
guest() {
  local guest="$TOOLS/guest"
  [ -e "$guest/vmlinuz" ] && [ -x "$guest/busybox" ] && return 0
  if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    say "missing: $guest/vmlinuz (a Linux kernel for x86-64) and $guest/busybox (static)"
    return 1
  fi
  local start=$SECONDS work kernel
  work=$(mktemp -d)
  # _apt must be able to write there.
  chmod 755 "$work"
  [ "$(id -u)" -ne 0 ] || apt-get update -qq
  kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
  if ! (cd "$work" && apt-get download -qq -o APT::Sandbox::User=root "$kernel" busybox-static) ||
    ! for package in "$work"/*.deb; do dpkg-deb --extract "$package" "$work/root" || exit 1; done; then
    rm -rf "$work"
    say "unpacking ${kernel:-linux-image-cloud-amd64} and busybox-static failed"
    return 1
  fi
  mkdir -p "$guest"
  cp "$work"/root/boot/vmlinuz-* "$guest/vmlinuz"
  cp "$work"/root/bin/busybox "$guest/busybox"
  rm -rf "$work"
  say "unpacked $kernel and busybox-static in $((SECONDS - start)) s"
}

cargo_deny() {
  local stamp="$BIN/.cargo-deny-$CARGO_DENY_VERSION"
  [ -x "$BIN/cargo-deny" ] && [ -e "$stamp" ] && return 0
  local start=$SECONDS work
  work=$(mktemp -d)
  # --debug: the program runs for a second per check, an optimised build of it takes far longer than that saves.
  # Its own target directory: it must not mix with, or be cached as part of, the workspace's.
  if ! CARGO_TARGET_DIR="$work" cargo install --quiet --locked --debug --root "$TOOLS" --version "$CARGO_DENY_VERSION" --force cargo-deny; then
    rm -rf "$work"
    say "building cargo-deny $CARGO_DENY_VERSION failed"
    return 1
  fi
  rm -rf "$work"
  rm -f "$BIN/.cargo-deny-"*
  touch "$stamp"
  say "built cargo-deny $CARGO_DENY_VERSION in $((SECONDS - start)) s"
}

clients() {
  # shellcheck disable=SC2086 # the list is words by design
  apt_packages $APT_CLIENTS $APT_SOURCES
  go_programs "$GO_CLIENTS"
  go_programs "$GO_SOURCES"
  prometheus_tool
  python_program openapi-python-client python-requirements.txt python
  python_program moto_server s3-requirements.txt s3
  node_program azurite-blob azurite azure
  guest
}

peers() {
  # shellcheck disable=SC2086
  apt_packages $APT_SOURCES
  go_programs "$GO_SOURCES"
  go_programs "$GO_PEERS"
}

mkdir -p "$BIN"
case "${1:-all}" in
  clients) clients ;;
  peers) peers ;;
  checks) cargo_deny ;;
  all) clients; peers; cargo_deny ;;
  *) sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2 ;;
esac
