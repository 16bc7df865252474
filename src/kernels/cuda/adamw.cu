// AdamW in one pass, VEC numbers at a time: p, m, v, g are f32, `count` packs. `copy` (bf16), where there is one,
// receives the rounded parameters.
typedef Pack<float, VEC> pack;
typedef Pack<bf16, VEC> rounded;

KERNEL adamw_step(
    pack *p, pack *m, pack *v, const pack *g, rounded *copy, long long count, float keep, float beta1, float beta2,
    float epsilon, float step_size, float correction, float scale
) {
    long long step = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        pack parameter = p[i], first = m[i], second = v[i], gradient = g[i];
        rounded narrow;
        for (int e = 0; e < VEC; e++) {
            float d = gradient.x[e] * scale;
            first.x[e] = first.x[e] + (d - first.x[e]) * (1.0f - beta1);
            second.x[e] = second.x[e] * beta2 + d * d * (1.0f - beta2);
            float change = first.x[e] / (sqrtf(second.x[e]) / correction + epsilon);
            parameter.x[e] = parameter.x[e] * keep - step_size * change;
            store(&narrow.x[e], parameter.x[e]);
        }
        m[i] = first;
        v[i] = second;
        p[i] = parameter;
        if (copy) copy[i] = narrow;
    }
}
