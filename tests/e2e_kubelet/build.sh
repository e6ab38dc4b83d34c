#!/bin/sh
# Builds a real kubelet (v1.20.2) from Debian 12's source package, once: build.sh CACHE -> CACHE/kubelet
#
# There is no binary of a kubelet in any package registry, and no newer source in Debian 12. It takes about ten
# minutes, 4 GB of disk while it lasts, golang-go, and the network of the package mirror. apt's lists of the
# system are not touched: an update with another list of sources would empty them.
set -eu

CACHE=${1:?usage: build.sh CACHE}
SUITES="bookworm bookworm-security"
mkdir -p "$CACHE"
CACHE=$(cd "$CACHE" && pwd)
if [ -x "$CACHE/kubelet" ]; then
    echo "$CACHE/kubelet"
    exit 0
fi
command -v go >/dev/null || { echo "needs Go: apt-get install golang-go" >&2; exit 1; }

mkdir -p "$CACHE/apt/lists/partial" "$CACHE/apt/cache/archives/partial"
cd "$CACHE"
if [ -z "$(ls kubernetes_*.dsc 2>/dev/null)" ]; then
    mirror=${DEBIAN_MIRROR:-http://deb.debian.org}
    for suite in $SUITES; do
        case $suite in *-security) path=debian-security ;; *) path=debian ;; esac
        echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror/$path $suite main"
    done >apt/sources.list
    set -- -o Dir::Etc::sourcelist="$CACHE/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::State::lists="$CACHE/apt/lists" -o Dir::Cache="$CACHE/apt/cache" -o APT::Sandbox::User=root
    apt-get -q "$@" update
    apt-get -q "$@" source --download-only kubernetes
fi
tree=$CACHE/gopath/src/k8s.io/kubernetes
if [ ! -e "$tree/cmd/kubelet" ]; then
    mkdir -p "$tree"
    tar -xzf kubernetes_*.orig.tar.gz -C "$tree" --strip-components=1
    tar -xJf kubernetes_*.debian.tar.xz -C "$tree"
    (cd "$tree" && while read -r patch; do
        case $patch in "" | "#"*) continue ;; esac
        patch -s -p1 <"debian/patches/$patch"
    done <debian/patches/series)
fi
cd "$tree"
GO111MODULE=off CGO_ENABLED=0 GOPATH=$CACHE/gopath GOCACHE=$CACHE/go-cache GOFLAGS= \
    nice -n 10 go build -p "${JOBS:-2}" -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=v1.20.2" \
    -o "$CACHE/kubelet.new" ./cmd/kubelet
mv "$CACHE/kubelet.new" "$CACHE/kubelet"
rm -rf "$CACHE/go-cache" "$CACHE/gopath"
echo "$CACHE/kubelet"
