// Attention over packed trees, forward: online softmax (Dao et al. 2022), no matrix of scores is kept.

// qkv (t, width) → out (t, heads·D), lse (heads, t). Grid: tiles × heads.
KERNEL __launch_bounds__(128) attention_forward(
    const real *qkv, const Tile *tiles, real *out, float *lse, int t, int width, int heads, int kv_heads, float scale,
    float cap, int window
) {
    alignas(16) __shared__ real ks[KEYS * PITCH];
    alignas(16) __shared__ real vs[KEYS * PITCH];
    Scores how = {scale, cap, window};
    Tile tile = tiles[blockIdx.x];
    int head = blockIdx.y, kv = head / (heads / kv_heads);
    int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    int up = warp * 16 + g, down = up + 8;
    const real *queries = qkv + (long long)tile.row * width + head * D;
    pair qf[DP / 16][4];
    left_rows(qf, up < tile.n ? queries + (long long)up * width : 0, down < tile.n ? queries + (long long)down * width : 0, q);

    float o[DP / 8][4] = {}, most[2] = {-INF, -INF}, sum[2] = {0.0f, 0.0f};
    for (int base = tile.first(window); base <= tile.last(); base += KEYS) {
        __syncthreads();
        copy_keys(ks, vs, qkv, tile, base, width, (heads + kv) * D, (heads + kv_heads + kv) * D);
        __syncthreads();
        if (warp * 16 >= tile.n || base > tile.at + warp * 16 + 15) continue;
        float s[KEYS / 8][4] = {}, top[2] = {most[0], most[1]}, slope;
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++) {
            times_rows(s[n], qf, ks + n * 8 * PITCH, g, q);
#pragma unroll
            for (int e = 0; e < 4; e++) s[n][e] = score(s[n][e], how, &slope);
        }
        // Most tiles lie before all of the warp's queries.
        if (window > 0 || base + KEYS - 1 > tile.at + warp * 16) {
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    int key = base + n * 8 + 2 * q + e % 2, query = tile.at + (e < 2 ? up : down);
                    if (!visible(key, query, window)) s[n][e] = -INF;
                }
        }
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) top[e / 2] = fmaxf(top[e / 2], s[n][e]);
#pragma unroll
        for (int r = 0; r < 2; r++) {
            top[r] = quad_max(top[r]);
            // Where nothing was visible yet, any finite number keeps the exponentials at 0.
            float from = top[r] == -INF ? 0.0f : top[r], shrink = EXP(most[r] - from);
            most[r] = top[r];
            sum[r] *= shrink;
#pragma unroll
            for (int n = 0; n < DP / 8; n++) {
                o[n][2 * r] *= shrink;
                o[n][2 * r + 1] *= shrink;
            }
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (int e = 2 * r; e < 2 * r + 2; e++) {
                    s[n][e] = EXP(s[n][e] - from);
                    sum[r] += s[n][e];
                }
        }
#pragma unroll
        for (int k = 0; k < KEYS / 16; k++) {
            pair p[4];
            as_left(p, s[2 * k], s[2 * k + 1]);
            times_columns(o, p, vs + k * 16 * PITCH, g, q);
        }
    }
    sum[0] = quad_sum(sum[0]);
    sum[1] = quad_sum(sum[1]);
    real *to = out + (long long)tile.row * heads * D + head * D;
    write_rows(
        up < tile.n ? to + (long long)up * heads * D : 0, down < tile.n ? to + (long long)down * heads * D : 0, o,
        1.0f / sum[0], 1.0f / sum[1], q
    );
    if (q == 0 && up < tile.n) lse[(long long)head * t + tile.row + up] = most[0] + logf(sum[0]);
    if (q == 0 && down < tile.n) lse[(long long)head * t + tile.row + down] = most[1] + logf(sum[1]);
}
