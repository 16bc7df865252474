#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, in one go: holds each kernel, the bench's shapes and a training run against the
# CPU or candle's plain operations, measures, and prints a report in Markdown (progress goes to stderr).
# Takes the binaries of `tests/gpu/pack.sh` where out/gpu has them (then no cargo is needed), else builds with CUDA.
# One process a test, so that a fault of one says nothing of the others; each result is in ${OUT:-out}/gpu.md as it
# comes, for whoever is cut off. Usage: tests/gpu/run.sh > reports/gpu.md
set -uo pipefail
cd "$(dirname "$0")/../.."
out=${OUT:-out} tests_limit=${TESTS_LIMIT:-280} bench_limit=${BENCH_LIMIT:-200}
mkdir -p "$out"
export REPORT=$out/gpu.md FAILURES=$out/gpu-failures.txt LOGS
LOGS=$(mktemp -d) && trap 'rm -rf "$LOGS"' EXIT
# Apart from the logs, which are searched for faults: a binary holds the words too.
work=$LOGS/bin && mkdir "$work"
: >"$REPORT" >"$FAILURES"
say() { echo "$*" >>"$REPORT"; }
end() {
  cat "$REPORT"
  exit "$1"
}

if [ -e out/gpu/gpu.xz ]; then
  commit=$(cat out/gpu/commit)
  for name in gpu bench; do xz -dc "out/gpu/$name.xz" >"$work/$name" && chmod +x "$work/$name"; done
  wheels=$(python3 -c 'import nvidia; print(list(nvidia.__path__)[0])' 2>/dev/null)
  export LD_LIBRARY_PATH=${wheels:+$wheels/cu13/lib:}/usr/local/nvidia/lib64:/usr/local/cuda/lib64:${LD_LIBRARY_PATH:-}
else
  commit=$(git describe --always --dirty 2>/dev/null || echo 'no commit')
  made() {
    cargo test --release --features cuda "$@" --no-run --message-format=json |
      sed -nE 's#.*"executable":"([^"]*/deps/gpu-[0-9a-f]+)".*#\1#p' | tail -n 1
  }
  test=$(made --test gpu) bench=$(made --bench gpu)
  [ -x "$test" ] && [ -x "$bench" ] || { echo "the build failed" >&2; exit 1; }
  ln -s "$test" "$work/gpu" && ln -s "$bench" "$work/bench"
fi
export TESTS=$work/gpu

say "# On a GPU"
say
say "Made by \`tests/gpu/run.sh\` from $commit, $(date -u +%F)."
say
say "GPU: $(nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader 2>/dev/null | head -n 1)"
say
missing=$(ldd "$work/gpu" "$work/bench" | grep "not found" | sort -u)
if [ -n "$missing" ]; then
  say "The programs cannot start; the loader lacks"
  say
  say "$missing"
  end 1
fi

# One line of the table at once, and what it printed where it failed.
one() {
  local log=$LOGS/${1//:/_} result=ok
  timeout "${TEST_LIMIT:-150}" "$TESTS" --exact "$1" --ignored --nocapture >"$log" 2>&1 || result="FAILED ($?)"
  grep -q "test result: ok. 1 passed" "$log" || [ "$result" != ok ] || result="FAILED (did not run)"
  echo "| $1 | $result |" >>"$REPORT"
  echo "$result $1" >&2
  [ "$result" = ok ] || { printf '%s\n' "$1: $result" "$(tail -n 25 "$log" | cut -c1-500)" "" >>"$FAILURES"; false; }
}
export -f one
names() { "$TESTS" --list --ignored | sed -n 's/: test$//p'; }

# Most of a test's time goes into compiling kernels: several at a time. Launches wait, so that a fault names its kernel.
say "| check | result |"
say "| --- | --- |"
names | CUDA_LAUNCH_BLOCKING=1 RUST_BACKTRACE=0 timeout "$tests_limit" xargs -P 6 -I{} bash -c 'one {}'
tested=$?
[ "$(grep -c '| ok |' "$REPORT")" -eq "$(names | wc -l)" ] || tested=1
say
timeout "$bench_limit" "$work/bench" --bench 2>&1 | tee -a "$REPORT" >&2
measured=$?

faulty=$(grep -lE "ILLEGAL_ADDRESS|MISALIGNED|illegal memory access|misaligned" "$LOGS"/* 2>/dev/null | head -n 1)
if [ -n "$faulty" ] && command -v compute-sanitizer >/dev/null; then
  name=$(names | while read -r n; do [ "$LOGS/${n//:/_}" != "$faulty" ] || echo "$n"; done)
  { echo "compute-sanitizer of $name"; timeout 120 compute-sanitizer "$TESTS" --exact "$name" --ignored 2>&1 | head -n 60; } >>"$FAILURES"
fi
if [ -s "$FAILURES" ]; then
  say
  sed 's/^/    /' "$FAILURES" >>"$REPORT"
fi
[ "$tested" -eq 0 ] && [ "$measured" -eq 0 ]
end $?
