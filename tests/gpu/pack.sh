#!/usr/bin/env bash
# Builds the GPU's tests and bench for a machine that has a GPU and nothing else: no cargo, no registry, no sources
# needed. They land stripped and compressed in out/gpu (which git ignores), where `tests/gpu/run.sh` looks for them.
# Needs a CUDA toolkit (CUDA_HOME, nvcc on PATH; CUDA_COMPUTE_CAP=90 where there is no GPU). Usage: tests/gpu/pack.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
rm -rf out/gpu && mkdir -p out/gpu

# The executable that cargo says it made.
made() {
  cargo "$@" --release --locked --features cuda --no-run --message-format=json |
    sed -nE 's#.*"executable":"([^"]*/deps/gpu-[0-9a-f]+)".*#\1#p' | tail -n 1
}
pack() {
  [ -x "$1" ] || { echo "cargo made no $2" >&2; exit 1; }
  strip -o "out/gpu/$2" "$1"
  xz -T0 -f "out/gpu/$2"
}
test=$(made test --test gpu)
bench=$(made test --bench gpu)
pack "$test" gpu
pack "$bench" bench
git describe --always --dirty >out/gpu/commit 2>/dev/null || echo unknown >out/gpu/commit
ls -l out/gpu >&2
