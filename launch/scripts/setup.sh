#!/usr/bin/env bash
# Installs what longnet is built with, where it is missing: Debian packages, and LibTorch from PyPI into third_party/.
# Run again it does nothing. Needs root or sudo only when a package is missing.
#
#   ./launch/scripts/setup.sh [--cuda] [more Debian packages]
#
# --cuda: for a build with CUDA, LibTorch with its CUDA libraries (5 GB) and, where there is no nvcc, the compiler beside them.
set -euo pipefail
cd "$(dirname "$0")/../.."

cuda=false
if [[ ${1:-} == --cuda ]]; then
  cuda=true
  shift
fi
packages=(g++ cmake ninja-build python3 python3-pip git libopenmpi-dev openmpi-bin libyaml-cpp-dev libpng-dev libcli11-dev
  libspdlog-dev nlohmann-json3-dev libxxhash-dev liblzma-dev libzip-dev zlib1g-dev libprotobuf-dev protobuf-compiler libgtest-dev
  libbenchmark-dev xz-utils ca-certificates "$@")
torch_version=2.11.0

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

# install_wheels FOLDER PIP-ARGUMENTS...: into third_party/FOLDER, unless that holds this LibTorch already.
install_wheels() {
  local folder=third_party/$1
  shift
  if grep -qs "^__version__ = '$torch_version" "$folder/torch/version.py"; then return; fi
  echo "setup: installing LibTorch $torch_version into $folder"
  rm -rf "$folder" "$folder.partial"
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$folder.partial" \
    "torch==$torch_version" "$@"
  mv "$folder.partial" "$folder"
}

if ! $cuda; then
  # Without --no-deps the wheel brings 4 GB of CUDA libraries. A CPU build loads two of them only.
  install_wheels libtorch --no-deps nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85
else
  install_wheels libtorch-cuda
  toolkit=third_party/libtorch-cuda/nvidia/cu13
  if ! command -v nvcc >/dev/null && [[ ! -x /usr/local/cuda/bin/nvcc && ! -x $toolkit/bin/nvcc ]]; then
    echo "setup: installing nvcc 13.0 into $toolkit"
    # Apart, then merged: pip replaces whole folders of its target.
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps \
      --target third_party/nvcc.partial nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 \
      nvidia-cuda-cccl==13.0.85 nvidia-cuda-runtime==13.0.96 nvidia-cuda-profiler-api==13.0.85 nvidia-nvtx==13.0.85
    cp -r third_party/nvcc.partial/nvidia/cu13/. $toolkit/
    rm -rf third_party/nvcc.partial
    # The wheels hold libraries by their full names alone; a linker looks for the short ones.
    (cd $toolkit/lib && for library in lib*.so.*; do ln -sf "$library" "${library%%.so.*}.so"; done)
    ln -sfn lib $toolkit/lib64
  fi
fi
