// Rotary embedding in place: component i of a head turns with i + half. x (t, n), cos and sin (t, half).
// One thread a pair; `pairs` = t·heads·half.
KERNEL rope_turn(real *x, const float *cosines, const float *sines, int pairs, int n, int heads, int d, int half, float sign) {
    int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= pairs) return;
    int i = at % half, head = at / half % heads, row = at / half / heads;
    real *a = x + (long long)row * n + head * d + i, *b = a + half;
    float c = cosines[(long long)row * half + i], s = sign * sines[(long long)row * half + i];
    float u = load(*a), v = load(*b);
    store(a, u * c - v * s);
    store(b, v * c + u * s);
}
