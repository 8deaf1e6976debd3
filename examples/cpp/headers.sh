#!/bin/sh
# Puts ONNX Runtime's C headers into a folder: this machine's, or those of Debian 13's package libonnxruntime-dev, which
# Debian 12 has not. The machine's own packages and sources of packages stay as they are.
set -eu
target=$1
if [ -d /usr/include/onnxruntime ]; then
  cp -r /usr/include/onnxruntime "$target"
  exit
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
repository=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Component: main' |
  grep -v -- -security | sort -u | head -n 1)
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $repository trixie main" >"$work/sources.list"
apt() {
  apt-get -qq -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
    -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root "$@"
}
apt update
(cd "$work" && apt download libonnxruntime-dev)
dpkg -x "$work"/libonnxruntime-dev_*.deb "$work/package"
mkdir -p "$(dirname "$target")"
cp -r "$work/package/usr/include/onnxruntime" "$target.part"
mv "$target.part" "$target"
