// Rotary embedding in place, VEC components at a time: component i of a head turns with i + half. x (blocks, n), cos and
// sin (blocks, half).
typedef Pack<real, VEC> pack;
typedef Pack<float, VEC> angles;

KERNEL rope_turn(
    pack *x, const angles *cosines, const angles *sines, int n, int heads, int d, int half, float sign
) {
    long long row = blockIdx.x;
    int packs = half / VEC;
    for (int at = threadIdx.x; at < heads * packs; at += blockDim.x) {
        int head = at / packs, i = at - head * packs;
        pack *a = x + (row * n + head * d) / VEC + i, *b = a + packs;
        angles c = cosines[row * packs + i], s = sines[row * packs + i];
        pack u = *a, v = *b, turned, other;
        for (int e = 0; e < VEC; e++) {
            float from = load(u.x[e]), to = load(v.x[e]), sine = sign * s.x[e];
            store(&turned.x[e], from * c.x[e] - to * sine);
            store(&other.x[e], to * c.x[e] + from * sine);
        }
        *a = turned;
        *b = other;
    }
}
