// Sums. OUT16: the total is bf16, else f32.
#if OUT16
typedef bf16 total;
#else
typedef float total;
#endif

// total += value
KERNEL sums_add(total *sum, const real *value, long long n) {
    long long step = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step)
        store(&sum[i], load(sum[i]) + load(value[i]));
}

// x *= factor; a factor of 0 also clears NaN.
KERNEL sums_scale(real *x, long long n, float factor) {
    long long step = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step)
        store(&x[i], factor == 0.0f ? 0.0f : load(x[i]) * factor);
}

// out (rows, c) = base + bias, either of which may be null: what a product is added to.
KERNEL sums_base(const real *base, const real *bias, real *out, long long n, int c) {
    long long step = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step)
        store(&out[i], (base ? load(base[i]) : 0.0f) + (bias ? load(bias[i % c]) : 0.0f));
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

// partials (gridDim.x,): Σ x² of each block's share.
KERNEL sums_squares(const real *x, float *partials, long long n) {
    long long step = (long long)gridDim.x * blockDim.x;
    float sum = 0.0f;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step)
        sum += load(x[i]) * load(x[i]);
    sum = block_sum(sum);
    if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}
