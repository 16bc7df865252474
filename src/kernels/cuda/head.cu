// Log-softmax over rows of logits (f32), one block a row, VEC numbers at a time. The targets of row r are
// ids[starts[r]..starts[r + 1]]. CAP: whether logits are softcapped.

typedef Pack<float, VEC> wide;
typedef Pack<real, VEC> narrow;
// Packs that a thread has under way at a time: `take` asks for all before the first is used.
constexpr int AHEAD = 4;

template <typename T> DEVICE void take(T x[AHEAD], const T *from, int start, int n) {
#pragma unroll
    for (int u = 0; u < AHEAD; u++)
        if (start + u * (int)blockDim.x < n) x[u] = from[start + u * blockDim.x];
}

DEVICE float capped(float x, float cap) {
#if CAP
    return cap * tanhf(x / cap);
#else
    return x;
#endif
}
DEVICE float cap_slope(float x, float cap) {
#if CAP
    float y = tanhf(x / cap);
    return 1.0f - y * y;
#else
    return 1.0f;
#endif
}

// logits (blocks, v) of rows first.. → lse (m,), logps (targets,), and probabilities (m, v) where `probs` is not null.
KERNEL head_forward(
    const float *__restrict__ logits, const unsigned *starts, const unsigned *ids, float *logps, float *lse,
    real *__restrict__ probs, int v, int first, float cap
) {
    const float *row = logits + (long long)blockIdx.x * v;
    const wide *packs = (const wide *)row;
    int r = first + blockIdx.x, n = v / VEC;
    float most = -INF, sum = 0.0f;
    for (int start = threadIdx.x; start < n; start += AHEAD * blockDim.x) {
        wide x[AHEAD];
        take(x, packs, start, n);
#pragma unroll
        for (int u = 0; u < AHEAD; u++) {
            if (start + u * (int)blockDim.x >= n) break;
            float top = most;
            for (int i = 0; i < VEC; i++) {
                x[u].x[i] = capped(x[u].x[i], cap);
                top = fmaxf(top, x[u].x[i]);
            }
            sum *= expf(most - top);
            for (int i = 0; i < VEC; i++) sum += expf(x[u].x[i] - top);
            most = top;
        }
    }
    float all = block_max(most);
    // A thread without a column adds nothing; NaN in any column reaches the sum.
    float total = all + logf(block_sum((int)threadIdx.x < n ? sum * expf(most - all) : 0.0f));
    if (threadIdx.x == 0) lse[r] = total;
    for (unsigned k = starts[r] + threadIdx.x; k < starts[r + 1]; k += blockDim.x)
        logps[k] = capped(row[ids[k]], cap) - total;
    if (!probs) return;
    narrow *out = (narrow *)(probs + (long long)r * v);
    for (int start = threadIdx.x; start < n; start += AHEAD * blockDim.x) {
        wide x[AHEAD];
        take(x, packs, start, n);
#pragma unroll
        for (int u = 0; u < AHEAD; u++) {
            narrow p;
            if (start + u * (int)blockDim.x >= n) break;
            for (int i = 0; i < VEC; i++) store(&p.x[i], expf(capped(x[u].x[i], cap) - total));
            out[start + u * blockDim.x] = p;
        }
    }
}

// d logit = Σ over the row's targets of d·(1[target] − p), times the softcap's slope. Reads `logits` (blocks, v) of
// rows first.. with their lse, or, where `logits` is null, probabilities in `out`, which it overwrites.
// At a target, where 1 − p cancels, p comes from the exact log-prob.
KERNEL head_backward(
    const float *__restrict__ logits, const unsigned *starts, const unsigned *ids, const float *dlogps,
    const float *logps, const float *lse, real *__restrict__ out, int v, int first, float cap
) {
    const float *row = logits ? logits + (long long)blockIdx.x * v : 0;
    real *to = out + (long long)blockIdx.x * v;
    narrow *packs = (narrow *)to;
    int r = first + blockIdx.x, n = v / VEC;
    unsigned begin = starts[r], end = starts[r + 1];
    float total = 0.0f;
    for (unsigned k = begin; k < end; k++) total -= dlogps[k];
    float level = row ? lse[r] : 0.0f;
    for (int start = threadIdx.x; start < n; start += AHEAD * blockDim.x) {
        wide x[AHEAD];
        narrow d[AHEAD];
        if (row) {
            take(x, (const wide *)row, start, n);
        } else {
            take(d, packs, start, n);
        }
#pragma unroll
        for (int u = 0; u < AHEAD; u++) {
            if (start + u * (int)blockDim.x >= n) break;
            for (int i = 0; i < VEC; i++) {
                float slope = row ? cap_slope(x[u].x[i], cap) : 1.0f;
                float p = row ? expf(capped(x[u].x[i], cap) - level) : load(d[u].x[i]);
                store(&d[u].x[i], total * p * slope);
            }
            packs[start + u * blockDim.x] = d[u];
        }
    }
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (unsigned k = begin; k < end; k++) {
        float hit = 0.0f;
        for (unsigned other = begin; other < end; other++)
            if (ids[other] == ids[k]) hit += dlogps[other];
        float slope = row ? cap_slope(row[ids[k]], cap) : 1.0f;
        store(&to[ids[k]], (total * expf(logps[k]) + hit) * slope);
    }
}
