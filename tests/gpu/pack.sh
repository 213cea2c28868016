#!/usr/bin/env bash
# Packs what tests/gpu/run.sh needs on a machine that has a GPU, Python with torch 2.11.0, and nothing else: the CUDA build's
# programs and tests, Open MPI and the other Debian libraries, configurations and data. The result is the folder
# build/gpu-pack, of less than 60 MiB, and build/gpu-pack.tar.xz, of a third of that; copy either there and call run.sh.
#
#   ./launch/scripts/setup.sh --cuda && ./tests/gpu/pack.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
build=build/cuda
pack=build/gpu-pack

programs=(longnet gpu core_attention distributed_communicator distributed_attention launch_training_step launch_models
  bench_gpu_attention)
cmake --preset cuda >/dev/null
cmake --build --preset cuda --target "${programs[@]}"
rm -rf $pack
mkdir -p $pack/bin $pack/libexec $pack/lib $pack/text $pack/tests $pack/openmpi/bin

for program in "${programs[@]}"; do
  strip -o $pack/bin/$program $build/bin/$program
done
strip -o $pack/libexec/longnet-program $build/libexec/longnet-program
cp -r configs $pack/
cp -r tests/golden $pack/tests/
cp tests/gpu/run.sh tests/gpu/report.py bench/eager_step.py $pack/
find core distributed models launch tests -name '*.cpp' -o -name '*.h' | xargs cp --parents -t $pack/text   # text to train on

# Open MPI as Debian lays it out below its prefix; OPAL_PREFIX moves the prefix. Left out: what needs other networks or a
# batch system.
openmpi_libraries=$(ompi_info --parsable --path libdir | cut -d: -f3)
plugins=$pack/openmpi/${openmpi_libraries#/usr/}/openmpi3
mkdir -p "$plugins" $pack/openmpi/share
cp "$openmpi_libraries"/openmpi3/*.so "$plugins"/
(cd "$plugins" && ls | grep -E 'ucx|ofi|openib|psm|slurm|gridengine|flux|jsm|romio|scoll|spml|memheap|sshmem|monitoring|dbg' | xargs rm -f)
cp -r /usr/share/openmpi $pack/openmpi/share/
cp "$(readlink -f "$(command -v mpirun)")" $pack/openmpi/bin/mpirun
cp "$(readlink -f "$(command -v orted)")" $pack/openmpi/bin/orted

# The Debian libraries that these load. LibTorch and what comes with it, and the C and C++ run-time, are there already.
{
  ldd $pack/bin/* $pack/libexec/* $pack/openmpi/bin/* "$plugins"/*.so 2>/dev/null || true
} | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u |
  grep -Ev 'libtorch|libc10|/nvidia/|libcu|libnccl|libgomp|/lib(c|m|dl|rt|util|pthread|resolv|stdc\+\+|gcc_s)\.so' |
  xargs -I{} cp -L {} $pack/lib/

tar --directory build --use-compress-program 'xz -2 --threads=0' -cf $pack.tar.xz gpu-pack
bytes=$(du --apparent-size --summarize --bytes $pack | cut -f1)
echo "packed $pack: $((bytes / 1024 / 1024)) MiB, and as one file: $pack.tar.xz"
if ((bytes > 60 * 1024 * 1024)); then
  echo "pack: more than 60 MiB" >&2
  exit 1
fi
