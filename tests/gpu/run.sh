#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, in one go: builds with CUDA, holds each kernel and a training run against the
# CPU, measures, and prints a report in Markdown (progress goes to stderr). Needs a CUDA toolkit with NVRTC.
# Usage: tests/gpu/run.sh > reports/gpu.md
set -uo pipefail
cd "$(dirname "$0")/../.."
tests=$(mktemp) && bench=$(mktemp) && trap 'rm -f "$tests" "$bench"' EXIT

cargo test --release --features cuda --test gpu --test gpu_compile -- --include-ignored --test-threads=1 \
  >"$tests" 2> >(tee -a "$tests" >&2)
tested=$?
cargo bench --features cuda --bench gpu >"$bench" 2> >(tee -a /dev/null >&2)
measured=$?

echo "# On a GPU"
echo
echo "Made by \`tests/gpu/run.sh\` from $(git rev-parse --short HEAD 2>/dev/null || echo 'no commit'), $(date -u +%F)."
echo
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader 2>/dev/null | sed 's/^/GPU: /'
echo
echo "| check against the CPU | result |"
echo "| --- | --- |"
sed -nE 's/^test ([a-z_0-9]+)( - .*)? \.\.\. ([A-Za-z]+).*/| \1 | \3 |/p' "$tests"
echo
if [ "$tested" -ne 0 ]; then
  echo '```'
  grep -E "panicked|error|off by|want|against" "$tests" | head -n 40
  echo '```'
  echo
fi
cat "$bench"
[ "$tested" -eq 0 ] && [ "$measured" -eq 0 ]
