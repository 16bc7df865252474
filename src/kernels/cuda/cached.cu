// Attention of new tokens to cached keys and values, for generation. A place is one new token; the host writes it as
// one number of 64 bits.

struct Place {
    int entry, position;
};

// Keys and values of row blockIdx.x of qkv (t, width) to its caches: caches[2·entry] and the next are the addresses of
// keys and values, (kv_heads, capacity, D) each.
KERNEL cached_append(
    const real *qkv, const Place *places, const long long *caches, int width, int heads, int kv_heads, int capacity
) {
    Place place = places[blockIdx.x];
    const real *from = qkv + (long long)blockIdx.x * width + heads * D;
    int side = kv_heads * D;
    for (int j = threadIdx.x; j < 2 * side; j += blockDim.x) {
        real *cache = (real *)caches[2 * place.entry + j / side];
        int head = j % side / D;
        cache[((long long)head * capacity + place.position) * D + j % D] = from[j];
    }
}

#define PIECES ((D + 31) / 32)

// out (t, heads·D). Grid: t × heads; each of the four warps takes every fourth key, each lane every 32nd component.
KERNEL cached_attend(
    const real *qkv, const Place *places, const long long *caches, real *out, int width, int heads, int kv_heads,
    int capacity, float scale, float cap, int window
) {
    __shared__ float mosts[4], sums[4], outs[4][D];
    Place place = places[blockIdx.x];
    int head = blockIdx.y, kv = head / (heads / kv_heads);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const real *query = qkv + (long long)blockIdx.x * width + head * D;
    const real *keys = (const real *)caches[2 * place.entry] + (long long)kv * capacity * D;
    const real *values = (const real *)caches[2 * place.entry + 1] + (long long)kv * capacity * D;
    float q[PIECES], o[PIECES], most = -INF, sum = 0.0f;
    for (int i = 0; i < PIECES; i++) {
        q[i] = lane + 32 * i < D ? load(query[lane + 32 * i]) : 0.0f;
        o[i] = 0.0f;
    }
    int first = window > 0 ? max(0, place.position + 1 - window) : 0;
    for (int key = first + warp; key <= place.position; key += 4) {
        float s = 0.0f;
        for (int i = 0; i < PIECES; i++)
            if (lane + 32 * i < D) s += q[i] * load(keys[(long long)key * D + lane + 32 * i]);
        s = warp_sum(s) * scale;
        if (cap > 0.0f) s = cap * tanhf(s / cap);
        float top = fmaxf(most, s), shrink = expf(most - top), p = expf(s - top);
        most = top;
        sum = sum * shrink + p;
        for (int i = 0; i < PIECES; i++)
            if (lane + 32 * i < D) o[i] = o[i] * shrink + p * load(values[(long long)key * D + lane + 32 * i]);
    }
    if (lane == 0) {
        mosts[warp] = most;
        sums[warp] = sum;
    }
    for (int i = 0; i < PIECES; i++)
        if (lane + 32 * i < D) outs[warp][lane + 32 * i] = o[i];
    __syncthreads();
    // Warp 0 has seen a key, so the largest is a number; a warp that has seen none weighs exp(−∞) = 0.
    float all = fmaxf(fmaxf(mosts[0], mosts[1]), fmaxf(mosts[2], mosts[3]));
    for (int j = threadIdx.x; j < D; j += blockDim.x) {
        float top = 0.0f, bottom = 0.0f;
        for (int w = 0; w < 4; w++) {
            float weight = expf(mosts[w] - all);
            top += weight * outs[w][j];
            bottom += weight * sums[w];
        }
        store(&out[(long long)blockIdx.x * heads * D + head * D + j], top / bottom);
    }
}
