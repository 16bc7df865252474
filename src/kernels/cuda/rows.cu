// Rows of a table by index, and their gradient, VEC elements at a time. OUT16: the sums go to bf16, else to f32.
#if OUT16
typedef bf16 total;
#else
typedef float total;
#endif
typedef Pack<real, VEC> pack;
typedef Pack<total, VEC> totals;

// out (blocks, c) = scale·table[ids]
KERNEL rows_gather(const pack *table, const unsigned *ids, pack *out, int c, float scale) {
    const pack *from = table + (long long)ids[blockIdx.x] * (c / VEC);
    pack *to = out + (long long)blockIdx.x * (c / VEC);
    for (int j = threadIdx.x; j < c / VEC; j += blockDim.x) {
        pack p = from[j];
        for (int e = 0; e < VEC; e++) store(&p.x[e], load(p.x[e]) * scale);
        to[j] = p;
    }
}

// One block an id that occurs: its rows of dy are members[starts[b]..starts[b + 1]], summed in this order, so that
// the result does not depend on who comes first. sums[ids[b]] += scale·Σ dy[members].
KERNEL rows_scatter(
    const pack *dy, const unsigned *ids, const unsigned *starts, const unsigned *members, totals *sums, int c,
    float scale
) {
    totals *to = sums + (long long)ids[blockIdx.x] * (c / VEC);
    for (int j = threadIdx.x; j < c / VEC; j += blockDim.x) {
        float sum[VEC] = {};
        for (unsigned m = starts[blockIdx.x]; m < starts[blockIdx.x + 1]; m++) {
            pack p = dy[(long long)members[m] * (c / VEC) + j];
            for (int e = 0; e < VEC; e++) sum[e] += load(p.x[e]);
        }
        totals all = to[j];
        for (int e = 0; e < VEC; e++) store(&all.x[e], load(all.x[e]) + scale * sum[e]);
        to[j] = all;
    }
}
