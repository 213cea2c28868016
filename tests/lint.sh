#!/usr/bin/env bash
# Formatting of all sources; clang-tidy on those that the last commit changed (or those since the revision in $1).
set -euo pipefail
cd "$(dirname "$0")/.."
./launch/scripts/setup.sh clang-format clang-tidy

git ls-files '*.h' '*.cpp' '*.cu' | xargs clang-format --dry-run --Werror
echo "lint: formatting is right"

base=${1:-HEAD~1}
if git rev-parse --verify --quiet "$base^{commit}" >/dev/null; then
  mapfile -t changed < <(git diff --name-only --diff-filter=d "$base" -- 'core/*.cpp' 'distributed/*.cpp' 'models/*.cpp' 'launch/*.cpp')
  if ((${#changed[@]})); then
    cmake --preset lint >/dev/null
    cmake --build --preset lint --target longnet_event_records   # for its generated header
    # Files that this build without CUDA does not compile are left out.
    printf '%s\n' "${changed[@]}" | while read -r file; do
      if grep -q "/$file\"" build/lint/compile_commands.json; then echo "$file"; fi
    done | xargs --no-run-if-empty --max-procs="$(nproc)" --max-args=1 clang-tidy -p build/lint --quiet
  fi
  echo "lint: clang-tidy accepts ${#changed[@]} changed files"
fi
