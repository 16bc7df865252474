// AdamW in one pass: p, m, v, g are f32. `copy` (bf16), where there is one, receives the rounded parameters.
KERNEL adamw_step(
    float *p, float *m, float *v, const float *g, bf16 *copy, long long n, float keep, float beta1, float beta2,
    float epsilon, float step_size, float correction, float scale
) {
    long long step = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        float d = g[i] * scale;
        float first = m[i] + (d - m[i]) * (1.0f - beta1);
        float second = v[i] * beta2 + d * d * (1.0f - beta2);
        float next = p[i] * keep - step_size * (first / (sqrtf(second) / correction + epsilon));
        m[i] = first;
        v[i] = second;
        p[i] = next;
        if (copy) store(&copy[i], next);
    }
}
