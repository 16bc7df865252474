// Rotary embedding in place: component i of a head turns with i + half. x (blocks, n), cos and sin (blocks, half).
KERNEL rope_turn(real *x, const float *cosines, const float *sines, int n, int heads, int d, int half, float sign) {
    long long row = blockIdx.x;
    for (int at = threadIdx.x; at < heads * half; at += blockDim.x) {
        int head = at / half, i = at - head * half;
        real *a = x + row * n + head * d + i, *b = a + half;
        float c = cosines[row * half + i], s = sign * sines[row * half + i];
        float u = load(*a), v = load(*b);
        store(a, u * c - v * s);
        store(b, v * c + u * s);
    }
}
