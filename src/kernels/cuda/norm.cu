// RMSNorm and LayerNorm. One block a row of c numbers; VEC of them at a time.

typedef Pack<real, VEC> pack;

// The mean to subtract (0 for RMSNorm) and the factor to multiply by.
DEVICE float2 moments(const pack *x, int c, float eps, int layer) {
    float mean = 0.0f;
    if (layer) {
        float sum = 0.0f;
        for (int j = threadIdx.x; j < c / VEC; j += blockDim.x) {
            pack p = x[j];
            for (int i = 0; i < VEC; i++) sum += load(p.x[i]);
        }
        mean = block_sum(sum) / c;
    }
    float square = 0.0f;
    for (int j = threadIdx.x; j < c / VEC; j += blockDim.x) {
        pack p = x[j];
        for (int i = 0; i < VEC; i++) square += (load(p.x[i]) - mean) * (load(p.x[i]) - mean);
    }
    float2 found = {mean, 1.0f / sqrtf(block_sum(square) / c + eps)};
    return found;
}

// y = (x − mean)·scale·(w + offset) + b; x, y (rows, c); b may be null.
KERNEL norm_forward(const pack *x, const pack *w, const pack *b, pack *y, int c, float eps, float offset, int layer) {
    long long start = (long long)blockIdx.x * (c / VEC);
    float2 m = moments(x + start, c, eps, layer);
    for (int j = threadIdx.x; j < c / VEC; j += blockDim.x) {
        pack in = x[start + j], weight = w[j], bias, out;
        if (b) bias = b[j];
        for (int i = 0; i < VEC; i++) {
            float value = (load(in.x[i]) - m.x) * m.y * (load(weight.x[i]) + offset);
            store(&out.x[i], b ? value + load(bias.x[i]) : value);
        }
        y[start + j] = out;
    }
}

// With u = (x − mean)·s and g = dy·(w + offset): dx = base + s·(g − mean(g) − u·mean(g·u)), mean(g) for LayerNorm
// only. `base` may be null, or dx itself. stats (rows, 2) receives mean and s.
KERNEL norm_backward(
    const pack *dy, const pack *x, const pack *w, const pack *base, pack *dx, float2 *stats, int c, float eps,
    float offset, int layer
) {
    long long start = (long long)blockIdx.x * (c / VEC);
    float2 m = moments(x + start, c, eps, layer);
    float level = 0.0f, along = 0.0f;
    for (int j = threadIdx.x; j < c / VEC; j += blockDim.x) {
        pack d = dy[start + j], in = x[start + j], weight = w[j];
        for (int i = 0; i < VEC; i++) {
            float g = load(d.x[i]) * (load(weight.x[i]) + offset);
            level += g;
            along += g * (load(in.x[i]) - m.x) * m.y;
        }
    }
    level = layer ? block_sum(level) / c : 0.0f;
    along = block_sum(along) / c;
    for (int j = threadIdx.x; j < c / VEC; j += blockDim.x) {
        pack d = dy[start + j], in = x[start + j], weight = w[j], from, out;
        if (base) from = base[start + j];
        for (int i = 0; i < VEC; i++) {
            float unit = (load(in.x[i]) - m.x) * m.y;
            float value = m.y * (load(d.x[i]) * (load(weight.x[i]) + offset) - level - unit * along);
            store(&out.x[i], base ? value + load(from.x[i]) : value);
        }
        dx[start + j] = out;
    }
    if (threadIdx.x == 0) stats[blockIdx.x] = m;
}

// Sums over the rows of one chunk (blockIdx.y) for one column a thread: dw += dy·u and db += dy.
// dw, db (chunks, c); db may be null.
KERNEL norm_columns(
    const real *dy, const real *x, const float2 *stats, float *dw, float *db, int rows, int c, int chunk
) {
    int j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= c) return;
    int first = blockIdx.y * chunk, end = min(first + chunk, rows);
    float weight = 0.0f, bias = 0.0f;
    for (int r = first; r < end; r++) {
        float d = load(dy[(long long)r * c + j]);
        float2 m = stats[r];
        weight += d * (load(x[(long long)r * c + j]) - m.x) * m.y;
        bias += d;
    }
    dw[(long long)blockIdx.y * c + j] = weight;
    if (db) db[(long long)blockIdx.y * c + j] = bias;
}
