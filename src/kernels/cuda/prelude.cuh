// What every kernel starts with. The host defines BF16 (0 or 1): the element type is bf16 or f32; sums are f32.
// Nothing is included, so that NVRTC needs no headers of the toolkit.
// PTX: instructions that C++ has no word for. PORTABLE does without (but for the tensor cores), to the same bits.
#if defined(EMULATED) || defined(PORTABLE)
#define PTX 0
#else
#define PTX 1
#endif

struct bf16 {
    unsigned short bits;
};
#if BF16
typedef bf16 real;
#else
typedef float real;
#endif

#define DEVICE static __device__ __forceinline__
#define KERNEL extern "C" __global__ void
#define FULL 0xffffffffu
#define INF __uint_as_float(0x7f800000u)

DEVICE float load(float x) {
    return x;
}
DEVICE float load(bf16 x) {
    return __uint_as_float((unsigned)x.bits << 16);
}
DEVICE void store(float *place, float x) {
    *place = x;
}
// Rounds to nearest, ties to even; NaN stays NaN.
DEVICE void store(bf16 *place, float x) {
#if PTX
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(place->bits) : "f"(x));
#else
    unsigned bits = __float_as_uint(x);
    bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    place->bits = nan ? 0x7fffu : (unsigned short)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
#endif
}

// N elements that are read and written at once; the host gives N only where addresses are multiples of it.
template <typename T, int N> struct alignas(sizeof(T) * N) Pack {
    T x[N];
};

DEVICE float warp_sum(float x) {
    for (int o = 16; o > 0; o /= 2) x += __shfl_xor_sync(FULL, x, o);
    return x;
}
DEVICE float warp_max(float x) {
    for (int o = 16; o > 0; o /= 2) x = fmaxf(x, __shfl_xor_sync(FULL, x, o));
    return x;
}

// Over the block, whose size is a multiple of 32; every thread gets the same bits.
DEVICE float block_sum(float x) {
    __shared__ float parts[32];
    x = warp_sum(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    float total = 0.0f;
    for (int w = 0; w < (int)blockDim.x / 32; w++) total += parts[w];
    return total;
}
DEVICE float block_max(float x) {
    __shared__ float parts[32];
    x = warp_max(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    float most = parts[0];
    for (int w = 1; w < (int)blockDim.x / 32; w++) most = fmaxf(most, parts[w]);
    return most;
}
