#!/usr/bin/env bash
# Installs what longnet is built with, where it is missing: Debian packages, and LibTorch from PyPI into third_party/.
# Run again it does nothing. Needs root or sudo only when a package is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(g++ cmake ninja-build python3 python3-pip git libopenmpi-dev openmpi-bin libyaml-cpp-dev libcli11-dev
  libspdlog-dev nlohmann-json3-dev libxxhash-dev liblzma-dev zlib1g-dev libprotobuf-dev protobuf-compiler libgtest-dev
  libbenchmark-dev xz-utils ca-certificates "$@")
torch_version=2.11.0
libtorch=third_party/libtorch

missing=()
for package in "${packages[@]}"; do
  if ! dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed; then
    missing+=("$package")
  fi
done
if ((${#missing[@]})); then
  as_root=()
  ((EUID == 0)) || as_root=(sudo)
  echo "setup: installing ${missing[*]}"
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

if [[ ! -f $libtorch/torch/version.py ]] || ! grep -q "^__version__ = '$torch_version" $libtorch/torch/version.py; then
  echo "setup: installing LibTorch $torch_version into $libtorch"
  rm -rf $libtorch $libtorch.partial
  # Without --no-deps the wheel brings 4 GB of CUDA libraries. A CPU build loads two of them only.
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps \
    --target $libtorch.partial "torch==$torch_version" nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85
  mv $libtorch.partial $libtorch
fi
