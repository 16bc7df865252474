// Attention over packed trees, backward: probabilities again from log Σ exp. Two kernels, one a query tile and one a
// key tile, so that every gradient is summed by one block in a fixed order.

// delta (heads, t) = Σ out·dout of each row of a head. One warp each.
KERNEL attention_delta(const real *out, const real *dout, float *delta, int t, int heads) {
    int at = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (at >= t * heads) return;
    int row = at / heads, head = at % heads;
    long long start = (long long)row * heads * D + head * D;
    typedef Pack<real, 2> two;
    float sum = 0.0f;
    for (int j = threadIdx.x % 32 * 2; j < D; j += 64) {
        two o = *(const two *)(out + start + j), d = *(const two *)(dout + start + j);
        sum += load(o.x[0]) * load(d.x[0]) + load(o.x[1]) * load(d.x[1]);
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) delta[(long long)head * t + row] = sum;
}

// The queries' part of dqkv. Grid: tiles × heads.
KERNEL __launch_bounds__(128) attention_queries(
    const real *qkv, const real *dout, const float *lse, const float *delta, const Tile *tiles, real *dqkv, int t,
    int width, int heads, int kv_heads, float scale, float cap, int window
) {
    alignas(16) __shared__ real ks[KEYS * PITCH];
    alignas(16) __shared__ real vs[KEYS * PITCH];
    Scores how = {scale, cap, window};
    Tile tile = tiles[blockIdx.x];
    int head = blockIdx.y, kv = head / (heads / kv_heads);
    int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    int up = warp * 16 + g, down = up + 8;
    bool has[2] = {up < tile.n, down < tile.n};
    const real *queries = qkv + (long long)tile.row * width + head * D;
    const real *outs = dout + (long long)tile.row * heads * D + head * D;
    pair qf[DP / 16][4], of[DP / 16][4];
    left_rows(qf, has[0] ? queries + (long long)up * width : 0, has[1] ? queries + (long long)down * width : 0, q);
    left_rows(of, has[0] ? outs + (long long)up * heads * D : 0, has[1] ? outs + (long long)down * heads * D : 0, q);
    long long place = (long long)head * t + tile.row;
    float total[2] = {has[0] ? lse[place + up] : 0.0f, has[1] ? lse[place + down] : 0.0f};
    float along[2] = {has[0] ? delta[place + up] : 0.0f, has[1] ? delta[place + down] : 0.0f};

    float dq[DP / 8][4] = {};
    for (int base = tile.first(window); base <= tile.last(); base += KEYS) {
        __syncthreads();
        copy_keys(ks, vs, qkv, tile, base, width, (heads + kv) * D, (heads + kv_heads + kv) * D);
        __syncthreads();
        if (warp * 16 >= tile.n || base > tile.at + warp * 16 + 15) continue;
        // A row sees the keys low + 1..high of those here, counted from 2q. Rows that are not there are zeros, and stay so.
        int high[2] = {tile.at + up - base - 2 * q, tile.at + down - base - 2 * q};
        int low[2] = {window > 0 ? high[0] - window : -1, window > 0 ? high[1] - window : -1};
#pragma unroll
        for (int k = 0; k < KEYS / 16; k++) {
            float ds[2][4];
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float s[4] = {}, dp[4] = {};
                times_rows(s, qf, ks + (k * 16 + i * 8) * PITCH, g, q);
                times_rows(dp, of, vs + (k * 16 + i * 8) * PITCH, g, q);
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    int key = k * 16 + i * 8 + e % 2;
                    float slope, x = score(s[e], how, &slope);
                    bool seen = key <= high[e / 2] && key > low[e / 2];
                    ds[i][e] = (seen ? EXP(x - total[e / 2]) : 0.0f) * (dp[e] - along[e / 2]) * slope;
                }
            }
            pair a[4];
            as_left(a, ds[0], ds[1]);
            times_columns(dq, a, ks + k * 16 * PITCH, g, q);
        }
    }
    real *to = dqkv + (long long)tile.row * width + head * D;
    write_rows(
        has[0] ? to + (long long)up * width : 0, has[1] ? to + (long long)down * width : 0, dq, scale, scale, q
    );
}

// Up to ROWS keys: rows row..row + n at positions at.., seen by viewers[begin..end].
struct KeyTile {
    int row, n, at, begin, end;
};
// Queries that see a key tile: rows row..row + n at positions at...
struct Viewer {
    int row, n, at;
};

// The keys' and values' parts of dqkv. Grid: key tiles × kv_heads.
KERNEL __launch_bounds__(128) attention_keys(
    const real *qkv, const real *dout, const float *lse, const float *delta, const KeyTile *tiles,
    const Viewer *viewers, real *dqkv, int t, int width, int heads, int kv_heads, float scale, float cap, int window
) {
    alignas(16) __shared__ real qs[QUERIES * PITCH];
    alignas(16) __shared__ real os[QUERIES * PITCH];
    __shared__ float totals[QUERIES], alongs[QUERIES];
    Scores how = {scale, cap, window};
    KeyTile tile = tiles[blockIdx.x];
    int kv = blockIdx.y, group = heads / kv_heads;
    int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    int up = warp * 16 + g, down = up + 8;
    bool has[2] = {up < tile.n, down < tile.n};
    const real *keys = qkv + (long long)tile.row * width + (heads + kv) * D, *values = keys + kv_heads * D;
    pair kf[DP / 16][4], vf[DP / 16][4];
    left_rows(kf, has[0] ? keys + (long long)up * width : 0, has[1] ? keys + (long long)down * width : 0, q);
    left_rows(vf, has[0] ? values + (long long)up * width : 0, has[1] ? values + (long long)down * width : 0, q);

    float dk[DP / 8][4] = {}, dv[DP / 8][4] = {};
    for (int head = kv * group; head < (kv + 1) * group; head++)
        for (int v = tile.begin; v < tile.end; v++) {
            Viewer viewer = viewers[v];
            int end = viewer.n;
            if (window > 0) end = min(end, window + tile.at + tile.n - 1 - viewer.at);
            for (int base = max(0, tile.at - viewer.at) / QUERIES * QUERIES; base < end; base += QUERIES) {
                __syncthreads();
                for (int i = threadIdx.x; i < QUERIES * (DP / VEC); i += blockDim.x) {
                    int r = i / (DP / VEC), chunk = i % (DP / VEC);
                    long long row = viewer.row + base + r;
                    bool there = base + r < viewer.n;
                    copy_chunk(qs, there ? qkv + row * width + head * D : 0, r, chunk);
                    copy_chunk(os, there ? dout + row * heads * D + head * D : 0, r, chunk);
                }
                for (int r = threadIdx.x; r < QUERIES; r += blockDim.x) {
                    long long place = (long long)head * t + viewer.row + base + r;
                    totals[r] = base + r < viewer.n ? lse[place] : 0.0f;
                    alongs[r] = base + r < viewer.n ? delta[place] : 0.0f;
                }
                __syncthreads();
                if (warp * 16 >= tile.n) continue;
                // A key is seen by the queries first..last - 1 of those here, counted from 2q. Queries that are not
                // there are zeros and add nothing.
                int first[2] = {tile.at + up - viewer.at - base - 2 * q, tile.at + down - viewer.at - base - 2 * q};
                int last[2] = {window > 0 ? first[0] + window : QUERIES, window > 0 ? first[1] + window : QUERIES};
#pragma unroll
                for (int k = 0; k < QUERIES / 16; k++) {
                    float p[2][4], ds[2][4];
#pragma unroll
                    for (int i = 0; i < 2; i++) {
                        float s[4] = {}, dp[4] = {};
                        times_rows(s, kf, qs + (k * 16 + i * 8) * PITCH, g, q);
                        times_rows(dp, vf, os + (k * 16 + i * 8) * PITCH, g, q);
#pragma unroll
                        for (int e = 0; e < 4; e++) {
                            int query = k * 16 + i * 8 + e % 2;
                            float slope, x = score(s[e], how, &slope);
                            bool seen = query >= first[e / 2] && query < last[e / 2];
                            p[i][e] = seen ? EXP(x - totals[query + 2 * q]) : 0.0f;
                            ds[i][e] = p[i][e] * (dp[e] - alongs[query + 2 * q]) * slope;
                        }
                    }
                    pair a[4];
                    as_left(a, p[0], p[1]);
                    times_columns(dv, a, os + k * 16 * PITCH, g, q);
                    as_left(a, ds[0], ds[1]);
                    times_columns(dk, a, qs + k * 16 * PITCH, g, q);
                }
            }
        }
    real *to = dqkv + (long long)tile.row * width + (heads + kv) * D, *other = to + kv_heads * D;
    write_rows(
        has[0] ? to + (long long)up * width : 0, has[1] ? to + (long long)down * width : 0, dk, scale, scale, q
    );
    write_rows(
        has[0] ? other + (long long)up * width : 0, has[1] ? other + (long long)down * width : 0, dv, 1.0f, 1.0f, q
    );
}
