// Products of a warp: c (16, 8) += a (16, 16)·b (16, 8), spread over its lanes as PTX spreads them
// (mma.m16n8k16). With g = lane / 4 and q = lane % 4 a lane holds, as pairs of neighbours along the depth,
//   a: (g, 2q) (g + 8, 2q) (g, 2q + 8) (g + 8, 2q + 8)    b: (2q, g) (2q + 8, g)
// and of c the numbers (g, 2q) (g, 2q + 1) (g + 8, 2q) (g + 8, 2q + 1).
// bf16 goes through the tensor cores; f32 through shuffles, in full precision.

#if BF16
typedef unsigned pair;
DEVICE pair pair_of(real low, real high) {
    return (unsigned)low.bits | (unsigned)high.bits << 16;
}
DEVICE pair pair_of(float low, float high) {
#if PTX
    pair p;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(p) : "f"(high), "f"(low));
    return p;
#else
    bf16 l, h;
    store(&l, low);
    store(&h, high);
    return pair_of(l, h);
#endif
}
#else
typedef float2 pair;
DEVICE pair pair_of(float low, float high) {
    pair p = {low, high};
    return p;
}
#endif
// Two neighbours; their place is a multiple of a pair's size.
DEVICE pair pair_at(const real *place) {
    return *(const pair *)place;
}
DEVICE void store_pair(real *place, float low, float high) {
    *(pair *)place = pair_of(low, high);
}

#if BF16 && defined(EMULATED)
void emulated_mma(float *c, const pair *a, const pair *b);
#endif

DEVICE void mma(float c[4], const pair a[4], const pair b[2]) {
#if BF16 && defined(EMULATED)
    emulated_mma(c, a, b);
#elif BF16
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    int g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    for (int part = 0; part < 2; part++) {
        pair up = a[2 * part], down = a[2 * part + 1], right = b[part];
        for (int j = 0; j < 4; j++) {
            float u0 = __shfl_sync(FULL, up.x, 4 * g + j), u1 = __shfl_sync(FULL, up.y, 4 * g + j);
            float d0 = __shfl_sync(FULL, down.x, 4 * g + j), d1 = __shfl_sync(FULL, down.y, 4 * g + j);
            float l0 = __shfl_sync(FULL, right.x, 8 * q + j), l1 = __shfl_sync(FULL, right.y, 8 * q + j);
            float r0 = __shfl_sync(FULL, right.x, 8 * q + 4 + j), r1 = __shfl_sync(FULL, right.y, 8 * q + 4 + j);
            c[0] += u0 * l0 + u1 * l1;
            c[1] += u0 * r0 + u1 * r1;
            c[2] += d0 * l0 + d1 * l1;
            c[3] += d0 * r0 + d1 * r1;
        }
    }
#endif
}

#if BF16 && PTX
// Matrices of 8 × 8 from shared memory; lanes 8·i to 8·i + 7 name the rows of the i-th, 16 bytes each. Of each, lane
// (g, q) receives (g, 2q) and (g, 2q + 1); transposed, (2q, g) and (2q + 1, g).
#define LDMATRIX(how, into, place, ...)                                                                               \
    asm volatile("ldmatrix.sync.aligned.m8n8." how ".shared.b16 " into ";"                                            \
                 : __VA_ARGS__                                                                                         \
                 : "r"((unsigned)__cvta_generic_to_shared(place))                                                      \
                 : "memory")
DEVICE void load_two(pair m[2], const real *row) {
    LDMATRIX("x2", "{%0, %1}, [%2]", row, "=r"(m[0]), "=r"(m[1]));
}
DEVICE void load_four(pair m[4], const real *row) {
    LDMATRIX("x4", "{%0, %1, %2, %3}, [%4]", row, "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3]));
}
DEVICE void load_four_turned(pair m[4], const real *row) {
    LDMATRIX("x4.trans", "{%0, %1, %2, %3}, [%4]", row, "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3]));
}
#endif
