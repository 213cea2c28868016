#!/usr/bin/env bash
# Formatting, and clang-tidy, of all sources; or clang-tidy of the files that are named.   ./tests/lint.sh [FILE...]
set -euo pipefail
cd "$(dirname "$0")/.."
./launch/scripts/setup.sh clang-format

git ls-files '*.h' '*.cpp' '*.cu' | xargs clang-format --dry-run --Werror
echo "lint: formatting is right"

# Debian's clang-tidy takes five times as long: it looks at every system header anew.
tidy=third_party/clang-tidy
version=23.1.4
if [[ ! -d $tidy/clang_tidy-$version.dist-info ]]; then
  rm -rf $tidy $tidy.partial
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target $tidy.partial clang-tidy==$version
  mv $tidy.partial $tidy
fi

cmake --preset lint >/dev/null
cmake --build --preset lint --target longnet_event_records longnet_translated_kernels >/dev/null   # for their generated headers
if (($#)); then files=("$@"); else mapfile -t files < <(git ls-files '*.cpp'); fi
# Each file once, though two targets may compile it.
mkdir -p build/lint/tidy
python3 -c 'import json, sys; json.dump(list({one["file"]: one for one in json.load(sys.stdin)}.values()), sys.stdout)' \
  <build/lint/compile_commands.json >build/lint/tidy/compile_commands.json
# Files that this build without CUDA does not compile are left out. OpenMP's header is the compiler's, not clang's. The analyser
# looks at fewer paths of a function than it could, which would take half as long again, mostly within the headers of libraries.
mapfile -t files < <(for file in "${files[@]}"; do if grep -q "/$file\"" build/lint/tidy/compile_commands.json; then echo "$file"; fi; done)
if ! printf '%s\0' "${files[@]}" | xargs --null --max-procs="$(nproc)" --max-args=1 \
    $tidy/clang_tidy/data/bin/clang-tidy -p build/lint/tidy --extra-arg={-fno-openmp,-Xclang,-analyzer-config,-Xclang,max-nodes=20000} --quiet 2>build/lint/tidy.log; then
  grep -vE '^[0-9]+ warnings' build/lint/tidy.log >&2 || true
  exit 1
fi
echo "lint: clang-tidy accepts ${#files[@]} files"
