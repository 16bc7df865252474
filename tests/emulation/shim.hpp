// Enough of CUDA to run a kernel's source as C++: every thread of a block is a fiber, blocks run one after another.
// A barrier switches fibers until all have arrived; shuffles exchange values through a barrier of the warp. Shared
// memory holds NaN when a block begins.

#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <sys/mman.h>
#include <tuple>
#include <type_traits>
#include <ucontext.h>
#include <utility>

#define EMULATED 1
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static __attribute__((section("shared_memory")))

struct float2 {
    float x, y;
};
struct Dim {
    unsigned x, y, z;
};

namespace emulation {
const int MOST = 1024, STACK = 256 * 1024;
enum State { Unborn, Ready, AtWarp, AtBlock, Done };

static Dim block_index, block_size, grid_size;
static int current, threads;
static State states[MOST];
static jmp_buf places[MOST], home;
static ucontext_t births[MOST];
static char *stacks;
static void (*body)(void *);
static void *body_data;
static uint64_t slots[2][MOST];
static int parity[MOST];
static const void *pointers[2][MOST];

static bool runnable(int t) {
    return states[t] == Ready || states[t] == Unborn;
}

// Goes on with the next thread that can run, or home where none can.
[[noreturn]] static void next() {
    for (int i = 1; i <= threads; i++) {
        int t = (current + i) % threads;
        if (!runnable(t)) continue;
        current = t;
        if (states[t] == Unborn) {
            states[t] = Ready;
            setcontext(&births[t]);
        }
        _longjmp(places[t], 1);
    }
    _longjmp(home, 1);
}

// Threads first..end wait for each other; those that have ended count as arrived.
static void __attribute__((noinline)) wait(State at, int first, int end) {
    states[current] = at;
    bool all = true;
    for (int t = first; t < end; t++) all &= states[t] == at || states[t] == Done;
    if (all) {
        for (int t = first; t < end; t++)
            if (states[t] == at) states[t] = Ready;
        return;
    }
    if (!_setjmp(places[current])) next();
}
static void warp_barrier() {
    int first = current / 32 * 32;
    wait(AtWarp, first, first + 32 < threads ? first + 32 : threads);
}

static void born() {
    body(body_data);
    states[current] = Done;
    // Whoever waits for this thread may have waited for it alone.
    for (State at : {AtBlock, AtWarp}) {
        int first = at == AtBlock ? 0 : current / 32 * 32, end = at == AtBlock ? threads : first + 32;
        bool all = true, any = false;
        for (int t = first; t < end && t < threads; t++) {
            all &= states[t] == at || states[t] == Done;
            any |= states[t] == at;
        }
        if (all && any)
            for (int t = first; t < end && t < threads; t++)
                if (states[t] == at) states[t] = Ready;
    }
    next();
}

extern "C" char __start_shared_memory[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_shared_memory[] __attribute__((weak, visibility("hidden")));

// Whether every thread of the block came to its end.
static bool run_block() {
    if (__start_shared_memory) memset(__start_shared_memory, 0xff, __stop_shared_memory - __start_shared_memory);
    if (!stacks)
        stacks = (char *)mmap(0, (size_t)MOST * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int t = 0; t < threads; t++) {
        states[t] = Unborn;
        getcontext(&births[t]);
        births[t].uc_stack.ss_sp = stacks + (size_t)t * STACK;
        births[t].uc_stack.ss_size = STACK;
        births[t].uc_link = 0;
        makecontext(&births[t], born, 0);
    }
    current = threads - 1;
    if (!_setjmp(home)) next();
    for (int t = 0; t < threads; t++)
        if (states[t] != Done) return false;
    return true;
}

template <typename T> constexpr char kind() {
    return std::is_pointer<T>::value       ? 'p'
           : std::is_same<T, float>::value  ? 'f'
           : std::is_same<T, double>::value ? 'd'
           : sizeof(T) == 8                 ? 'l'
                                            : 'i';
}

template <typename... A> struct Call {
    void (*function)(A...);
    void **args;
    template <size_t... I> void with(std::index_sequence<I...>) {
        function(*(A *)args[I]...);
    }
    static void run(void *data) {
        ((Call *)data)->with(std::index_sequence_for<A...>());
    }
};

// 0: ran; 1: the arguments are not the kernel's; 2: threads wait for each other for ever.
template <typename... A> int launch(void (*function)(A...), const unsigned *grid, unsigned block, const char *kinds, void **args) {
    const char wanted[] = {kind<A>()..., 0};
    if (strcmp(wanted, kinds) != 0) {
        fprintf(stderr, "the kernel takes %s, the launcher gives %s\n", wanted, kinds);
        return 1;
    }
    Call<A...> call = {function, args};
    body = Call<A...>::run;
    body_data = &call;
    threads = block;
    block_size = {block, 1, 1};
    grid_size = {grid[0], grid[1], 1};
    for (unsigned y = 0; y < grid[1]; y++)
        for (unsigned x = 0; x < grid[0]; x++) {
            block_index = {x, y, 0};
            if (!run_block()) return 2;
        }
    return 0;
}
} // namespace emulation

#define threadIdx (Dim{(unsigned)emulation::current, 0, 0})
#define blockIdx emulation::block_index
#define blockDim emulation::block_size
#define gridDim emulation::grid_size

static inline void __syncthreads() {
    emulation::wait(emulation::AtBlock, 0, emulation::threads);
}
template <typename T> static inline T exchanged(T x, int from) {
    // Two sets of slots: nobody writes the one again before all have read the other.
    int set = emulation::parity[emulation::current] ^= 1;
    memcpy(&emulation::slots[set][emulation::current], &x, sizeof x);
    int first = emulation::current / 32 * 32;
    emulation::warp_barrier();
    memcpy(&x, &emulation::slots[set][first + from % 32], sizeof x);
    return x;
}
template <typename T> static inline T __shfl_sync(unsigned, T x, int from) {
    return exchanged(x, from);
}
template <typename T> static inline T __shfl_xor_sync(unsigned, T x, int mask) {
    return exchanged(x, emulation::current % 32 ^ mask);
}
static inline unsigned __float_as_uint(float x) {
    unsigned bits;
    memcpy(&bits, &x, 4);
    return bits;
}
static inline float __uint_as_float(unsigned bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
static inline int min(int a, int b) {
    return a < b ? a : b;
}
static inline int max(int a, int b) {
    return a > b ? a : b;
}

// mma.m16n8k16 of bf16 by the layout that PTX ISA documents for its fragments, element by element.
static void __attribute__((noinline, unused)) emulated_mma(float *c, const unsigned *a, const unsigned *b) {
    using namespace emulation;
    pointers[0][current] = a;
    pointers[1][current] = b;
    int first = current / 32 * 32, group = current % 32 / 4, in_group = current % 4;
    warp_barrier();
    auto element = [&](int which, int lane, int i) {
        unsigned both = ((const unsigned *)pointers[which][first + lane])[i / 2];
        return __uint_as_float(i % 2 ? both & 0xffff0000u : both << 16);
    };
    for (int i = 0; i < 4; i++) {
        int row = i < 2 ? group : group + 8, column = in_group * 2 + i % 2;
        double sum = c[i];
        for (int k = 0; k < 16; k++) {
            // a0..a7: row group (+8 for 2, 3, 6, 7), column in_group·2 + (i & 1) (+8 for 4..7).
            int a_index = k % 2 + (row >= 8 ? 2 : 0) + (k >= 8 ? 4 : 0), a_lane = row % 8 * 4 + k % 8 / 2;
            // b0..b3: row in_group·2 + (i & 1) (+8 for 2, 3), column group.
            int b_index = k % 2 + (k >= 8 ? 2 : 0), b_lane = column * 4 + k % 8 / 2;
            sum += (double)element(0, a_lane, a_index) * element(1, b_lane, b_index);
        }
        c[i] = (float)sum;
    }
    warp_barrier();
}

#define __expf expf // glibc has a function of this name

#define EXPORT(name)                                                                                                   \
    extern "C" int launch_##name(const unsigned *grid, unsigned block, const char *kinds, void **args) {              \
        return emulation::launch(name, grid, block, kinds, args);                                                     \
    }
