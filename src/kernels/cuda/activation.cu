// The nonlinearity of a feed-forward block. ACT: 0 SiLU, 1 GELU by tanh, 2 GELU by erf, 3 ReLU.
// GATED: x (t, 2f) holds gate and value side by side; else x (t, f).

typedef Pack<real, VEC> pack;

// (act(x), act'(x))
DEVICE float2 value_and_slope(float x) {
    float2 out;
#if ACT == 0
    float s = 1.0f / (1.0f + expf(-x));
    out.x = x * s;
    out.y = s + out.x * (1.0f - s);
#elif ACT == 1
    const float root = 1.5957691216057308f, cubic = 0.044715f; // 2·√(2/π)
    float s = 1.0f / (1.0f + expf(-root * x * (1.0f + cubic * x * x)));
    out.x = x * s;
    out.y = s + x * s * (1.0f - s) * root * (1.0f + 3.0f * cubic * x * x);
#elif ACT == 2
    float cdf = 0.5f + 0.5f * erff(x * 0.7071067811865476f);
    out.x = x * cdf;
    out.y = cdf + x * 0.3989422804014327f * expf(-0.5f * x * x);
#else
    out.y = x > 0.0f ? 1.0f : 0.0f;
    out.x = x * out.y;
#endif
    return out;
}

// `count` packs of y in rows of f.
KERNEL activation_forward(const pack *x, pack *y, int count, int f) {
    int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count) return;
    int width = f / VEC, row = at / width, j = at % width;
    const pack *in = x + (long long)row * width * (1 + GATED);
    pack gate = in[j], out;
#if GATED
    pack value = in[width + j];
#endif
    for (int i = 0; i < VEC; i++) {
        float a = value_and_slope(load(gate.x[i])).x;
#if GATED
        a *= load(value.x[i]);
#endif
        store(&out.x[i], a);
    }
    y[at] = out;
}

// Writes y over dy and dx over x.
KERNEL activation_backward(pack *dy, pack *x, int count, int f) {
    int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count) return;
    int width = f / VEC, row = at / width, j = at % width;
    pack *in = x + (long long)row * width * (1 + GATED);
    pack gate = in[j], d = dy[at], y, dgate;
#if GATED
    pack value = in[width + j], dvalue;
#endif
    for (int i = 0; i < VEC; i++) {
        float2 a = value_and_slope(load(gate.x[i]));
        float up = load(d.x[i]);
#if GATED
        float v = load(value.x[i]);
        store(&y.x[i], a.x * v);
        store(&dgate.x[i], up * a.y * v);
        store(&dvalue.x[i], up * a.x);
#else
        store(&y.x[i], a.x);
        store(&dgate.x[i], up * a.y);
#endif
    }
    dy[at] = y;
    in[j] = dgate;
#if GATED
    in[width + j] = dvalue;
#endif
}
