#!/usr/bin/env bash
# Fetches four bacterial genomes of 5.5 million bases each (Klebsiella pneumoniae; Debian's package kleborate-examples) into
# data/genomes. The package is unpacked, not installed: no root needed.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=data/genomes
if ! compgen -G "$target/*.fna.xz" >/dev/null; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  (cd "$work" && apt-get download -qq kleborate-examples && dpkg-deb --extract kleborate-examples_*.deb unpacked)
  mkdir -p "$target"
  cp "$work"/unpacked/usr/share/doc/kleborate/examples/data/*.fna.xz "$target/"
fi
ls -l "$target"
