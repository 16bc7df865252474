// What attention's kernels share. The host defines D (width of a head, even), DP (D up to a multiple of 16), KEYS and
// QUERIES (rows in shared memory at a time, multiples of 16), VEC (elements copied at once, a divisor of D) and CAP (whether scores
// are softcapped).
//
// The fused projection holds h query heads, k key heads and k value heads, D each. A block of 128 threads is four warps
// of 16 rows. Keys have virtual positions: 0..past is the shared prompt, what follows is the segment's own; a query
// at position i sees the keys up to i, the last `window` of them where window > 0.

#define ROWS 64
#define PITCH (DP + 16 / (int)sizeof(real)) // of a row in shared memory: keeps lanes on different banks

struct Scores {
    float scale, cap;
    int window;
};

#if BF16
#define EXP __expf
#else
#define EXP expf
#endif

// scale·s, softcapped where CAP; its slope in s, without the scale, goes to `slope`.
DEVICE float score(float s, Scores how, float *slope) {
    s *= how.scale;
    *slope = 1.0f;
#if CAP
    float y = tanhf(s / how.cap);
    *slope = 1.0f - y * y;
    s = how.cap * y;
#endif
    return s;
}
DEVICE bool visible(int key, int query, int window) {
    return key <= query && (window <= 0 || query - key < window);
}

// Row `row` of shared memory: D numbers, then zeros up to DP; all zeros where `from` is null.
DEVICE void copy_chunk(real *shared, const real *from, int row, int chunk) {
    typedef Pack<real, VEC> pack;
    int column = chunk * VEC;
    pack p = {};
    if (from && column < D) p = *(const pack *)(from + column);
    *(pack *)(shared + row * PITCH + column) = p;
}

// The four fragments' worth of a row pair: `up` and `down` are rows of D numbers, or null for zeros.
DEVICE void left_rows(pair a[DP / 16][4], const real *up, const real *down, int q) {
#pragma unroll
    for (int k = 0; k < DP / 16; k++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const real *row = i % 2 ? down : up;
            int column = k * 16 + i / 2 * 8 + 2 * q;
            pair zeros = {};
            a[k][i] = row && column < D ? pair_at(row + column) : zeros;
        }
}

// c (16, 8) += a (16, DP)·bᵀ with b the eight rows from `rows` on, in shared memory.
DEVICE void times_rows(float c[4], const pair a[DP / 16][4], const real *rows, int g, int q) {
#if BF16 && PTX
    const real *row = rows + threadIdx.x % 8 * PITCH + threadIdx.x / 8 % 4 * 8;
    pair b[4];
#pragma unroll
    for (int k = 0; k + 1 < DP / 16; k += 2) {
        load_four(b, row + k * 16);
        mma(c, a[k], b);
        mma(c, a[k + 1], b + 2);
    }
    if (DP / 16 % 2) {
        // Lanes 16 to 31 name nothing, and stay inside the row.
        load_two(b, rows + threadIdx.x % 8 * PITCH + threadIdx.x / 8 % 2 * 8 + DP - 16);
        mma(c, a[DP / 16 - 1], b);
    }
#else
#pragma unroll
    for (int k = 0; k < DP / 16; k++) {
        const real *place = rows + g * PITCH + k * 16 + 2 * q;
        pair b[2] = {pair_at(place), pair_at(place + 8)};
        mma(c, a[k], b);
    }
#endif
}

// c (16, DP) += a (16, 16)·b with b the sixteen rows from `rows` on, in shared memory.
DEVICE void times_columns(float c[DP / 8][4], const pair a[4], const real *rows, int g, int q) {
#if BF16 && PTX
    const real *row = rows + threadIdx.x % 16 * PITCH + threadIdx.x / 16 % 2 * 8;
#pragma unroll
    for (int n = 0; n < DP / 8; n += 2) {
        pair b[4];
        load_four_turned(b, row + n * 8);
        mma(c[n], a, b);
        mma(c[n + 1], a, b + 2);
    }
#else
#pragma unroll
    for (int n = 0; n < DP / 8; n++) {
        const real *place = rows + 2 * q * PITCH + n * 8 + g;
        pair b[2] = {pair_of(place[0], place[PITCH]), pair_of(place[8 * PITCH], place[9 * PITCH])};
        mma(c[n], a, b);
    }
#endif
}

// Two neighbouring accumulators (16, 8) as the left side of the next product.
DEVICE void as_left(pair a[4], const float first[4], const float second[4]) {
    a[0] = pair_of(first[0], first[1]);
    a[1] = pair_of(first[2], first[3]);
    a[2] = pair_of(second[0], second[1]);
    a[3] = pair_of(second[2], second[3]);
}

// Rows `up` and `down` (null: not written) of a result (16, DP), times a factor each.
DEVICE void write_rows(real *up, real *down, const float c[DP / 8][4], float times_up, float times_down, int q) {
#pragma unroll
    for (int n = 0; n < DP / 8; n++) {
        int column = n * 8 + 2 * q;
        if (up && column < D) store_pair(up + column, c[n][0] * times_up, c[n][1] * times_up);
        if (down && column < D) store_pair(down + column, c[n][2] * times_down, c[n][3] * times_down);
    }
}

DEVICE float quad_sum(float x) {
    x += __shfl_xor_sync(FULL, x, 1);
    return x + __shfl_xor_sync(FULL, x, 2);
}
DEVICE float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(FULL, x, 1));
    return fmaxf(x, __shfl_xor_sync(FULL, x, 2));
}

// Up to ROWS queries of one segment: rows row..row + n at positions at.., after `past` keys from past_row on; the
// segment's own keys begin at row `own`.
struct Tile {
    int row, n, at, past_row, past, own;
    __device__ int key_row(int key) const { return key < past ? past_row + key : own + key - past; }
    __device__ int last() const { return at + n - 1; }
    __device__ int first(int window) const { return window > 0 ? max(0, at - window + 1) / KEYS * KEYS : 0; }
};

// Keys and values base.. of a tile's segment to shared memory.
DEVICE void copy_keys(real *ks, real *vs, const real *qkv, Tile tile, int base, int width, int key_column, int value_column) {
    for (int i = threadIdx.x; i < KEYS * (DP / VEC); i += blockDim.x) {
        int row = i / (DP / VEC), chunk = i % (DP / VEC);
        bool there = base + row <= tile.last();
        const real *from = there ? qkv + (long long)tile.key_row(base + row) * width : 0;
        copy_chunk(ks, from ? from + key_column : 0, row, chunk);
        copy_chunk(vs, from ? from + value_column : 0, row, chunk);
    }
}
