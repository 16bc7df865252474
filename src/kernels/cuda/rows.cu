// Rows of a table by index, and their gradient. OUT16: the sums go to bf16, else to f32.
#if OUT16
typedef bf16 total;
#else
typedef float total;
#endif

// out (blocks, c) = scale·table[ids]
KERNEL rows_gather(const real *table, const unsigned *ids, real *out, int c, float scale) {
    const real *from = table + (long long)ids[blockIdx.x] * c;
    real *to = out + (long long)blockIdx.x * c;
    for (int j = threadIdx.x; j < c; j += blockDim.x) store(&to[j], load(from[j]) * scale);
}

// One block an id that occurs: its rows of dy are members[starts[b]..starts[b + 1]], summed in this order, so that
// the result does not depend on who comes first. sums[ids[b]] += scale·Σ dy[members].
KERNEL rows_scatter(
    const real *dy, const unsigned *ids, const unsigned *starts, const unsigned *members, total *sums, int c, float scale
) {
    total *to = sums + (long long)ids[blockIdx.x] * c;
    for (int j = threadIdx.x; j < c; j += blockDim.x) {
        float sum = 0.0f;
        for (unsigned m = starts[blockIdx.x]; m < starts[blockIdx.x + 1]; m++)
            sum += load(dy[(long long)members[m] * c + j]);
        store(&to[j], load(to[j]) + scale * sum);
    }
}
