// x∘m with the mask of LoRA's dropout: 0 where the element's draw lies below `below`, else `kept`.

// SplitMix64's output function at a counter: the draws of the CPU, bit for bit.
DEVICE unsigned long long mixed(unsigned long long key, unsigned long long counter) {
    unsigned long long z = key + (counter + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

// out (blocks, c) = base + x∘m, base null or out itself. Row b has the number first + rows[b], or first + b where
// `rows` is null.
KERNEL dropout_apply(
    const real *x, const real *base, real *out, const unsigned *rows, unsigned long long first, unsigned long long key,
    unsigned long long below, float kept, int c
) {
    unsigned long long number = (first + (rows ? rows[blockIdx.x] : blockIdx.x)) * (unsigned long long)c;
    long long start = (long long)blockIdx.x * c;
    real factor;
    store(&factor, kept);
    for (int j = threadIdx.x; j < c; j += blockDim.x) {
        float y = mixed(key, number + j) < below ? 0.0f * load(x[start + j]) : load(x[start + j]) * load(factor);
        store(&out[start + j], base ? load(base[start + j]) + y : y);
    }
}
