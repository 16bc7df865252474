// Sums, VEC elements at a time where there are many. OUT16: the total is bf16, else f32.
#if OUT16
typedef bf16 total;
#else
typedef float total;
#endif

typedef Pack<real, VEC> pack;
typedef Pack<total, VEC> totals;

// total += value, `count` packs.
KERNEL sums_add(totals *sum, const pack *value, long long count) {
    long long step = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        totals s = sum[i];
        pack x = value[i];
        for (int e = 0; e < VEC; e++) store(&s.x[e], load(s.x[e]) + load(x.x[e]));
        sum[i] = s;
    }
}

// x *= factor, `count` packs; a factor of 0 also clears NaN, and reads nothing.
KERNEL sums_scale(pack *x, long long count, float factor) {
    long long step = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        pack p = {};
        if (factor != 0.0f) {
            p = x[i];
            for (int e = 0; e < VEC; e++) store(&p.x[e], load(p.x[e]) * factor);
        }
        x[i] = p;
    }
}

// out (rows, c) = base + bias, either of which may be null: what a product is added to. `count` packs, `width` a row.
KERNEL sums_base(const pack *base, const pack *bias, pack *out, long long count, int width) {
    long long step = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        pack sum = {}, more;
        if (base) sum = base[i];
        if (bias) {
            more = bias[i % width];
            for (int e = 0; e < VEC; e++) store(&sum.x[e], load(sum.x[e]) + load(more.x[e]));
        }
        out[i] = sum;
    }
}

// out (chunks, c): sums of x (rows, c) over the rows of one chunk (blockIdx.y), one column a thread.
KERNEL sums_columns(const real *x, float *out, int rows, int c, int chunk) {
    int j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= c) return;
    int first = blockIdx.y * chunk, end = min(first + chunk, rows);
    float sum = 0.0f;
    for (int r = first; r < end; r++) sum += load(x[(long long)r * c + j]);
    out[(long long)blockIdx.y * c + j] = sum;
}

// sum (c,) += Σ over chunks of partials (chunks, c)
KERNEL sums_fold(const float *partials, total *sum, int chunks, int c) {
    int j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= c) return;
    float all = 0.0f;
    for (int k = 0; k < chunks; k++) all += partials[(long long)k * c + j];
    store(&sum[j], load(sum[j]) + all);
}

// partials (gridDim.x,): Σ x² of each block's share of `count` packs.
KERNEL sums_squares(const pack *x, float *partials, long long count) {
    long long step = (long long)gridDim.x * blockDim.x;
    float sum = 0.0f;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        pack p = x[i];
        for (int e = 0; e < VEC; e++) sum += load(p.x[e]) * load(p.x[e]);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}
