// Log-softmax over rows of logits (f32), one block a row. The targets of row r are ids[starts[r]..starts[r + 1]].

DEVICE float capped(float x, float cap) {
    return cap > 0.0f ? cap * tanhf(x / cap) : x;
}
DEVICE float cap_slope(float x, float cap) {
    if (!(cap > 0.0f)) return 1.0f;
    float y = tanhf(x / cap);
    return 1.0f - y * y;
}

// logits (blocks, v) of rows first.. → lse (m,), logps (targets,), and probabilities (m, v) where `probs` is not null.
// cap ≤ 0: none.
KERNEL head_forward(
    const float *logits, const unsigned *starts, const unsigned *ids, float *logps, float *lse, real *probs, int v,
    int first, float cap
) {
    const float *row = logits + (long long)blockIdx.x * v;
    int r = first + blockIdx.x;
    float most = -INF, sum = 0.0f;
    for (int j = threadIdx.x; j < v; j += blockDim.x) {
        float x = capped(row[j], cap);
        if (x > most) {
            sum = sum * expf(most - x) + 1.0f;
            most = x;
        } else {
            sum += expf(x - most);
        }
    }
    float all = block_max(most);
    // A thread without a column adds nothing; NaN in any column reaches the sum.
    float total = all + logf(block_sum((int)threadIdx.x < v ? sum * expf(most - all) : 0.0f));
    if (threadIdx.x == 0) lse[r] = total;
    for (unsigned k = starts[r] + threadIdx.x; k < starts[r + 1]; k += blockDim.x)
        logps[k] = capped(row[ids[k]], cap) - total;
    if (!probs) return;
    real *out = probs + (long long)r * v;
    for (int j = threadIdx.x; j < v; j += blockDim.x) store(&out[j], expf(capped(row[j], cap) - total));
}

// d logit = Σ over the row's targets of d·(1[target] − p), times the softcap's slope. Reads `logits` (blocks, v) of
// rows first.. with their lse, or, where `logits` is null, probabilities in `out`, which it overwrites.
// At a target, where 1 − p cancels, p comes from the exact log-prob.
KERNEL head_backward(
    const float *logits, const unsigned *starts, const unsigned *ids, const float *dlogps, const float *logps,
    const float *lse, real *out, int v, int first, float cap
) {
    const float *row = logits ? logits + (long long)blockIdx.x * v : 0;
    real *to = out + (long long)blockIdx.x * v;
    int r = first + blockIdx.x;
    unsigned begin = starts[r], end = starts[r + 1];
    float total = 0.0f;
    for (unsigned k = begin; k < end; k++) total -= dlogps[k];
    for (int j = threadIdx.x; j < v; j += blockDim.x) {
        if (row) {
            store(&to[j], total * expf(capped(row[j], cap) - lse[r]) * cap_slope(row[j], cap));
        } else {
            store(&to[j], total * load(to[j]));
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
