// A token for each of several sequences from its row of logits (f32), one block a sequence: nothing but tokens and
// log-probs goes back to the host. Weights are exp((x − max)·factor); what top-k and top-p keep is found by halving
// the range of thresholds, a pass over the row each, so that nothing is sorted and the order of sums is fixed.

#define THREADS 1024
#define WARPS (THREADS / 32)

// What a sequence gets: a token and the bits of its log-prob, or why there is none.
struct Found {
    unsigned token, logp;
};
#define BROKEN 0xffffffffu // `logp` is then the first NaN's place.
#define EMPTY 0xfffffffeu

struct Given {
    long long row;
    // The uniform number times 2^53.
    long long draw;
};

// Unsigned numbers in the order of floats; −0 is 0.
DEVICE unsigned ordered(float x) {
    unsigned bits = __float_as_uint(x + 0.0f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

DEVICE double warp_total(double x) {
    for (int o = 16; o > 0; o /= 2) x += __shfl_xor_sync(FULL, x, o);
    return x;
}

// Σ of(x, i) over the row; every thread gets the same bits.
template <typename F> DEVICE double total(const float *__restrict__ row, int n, F of) {
    __shared__ double parts[WARPS];
    double sum = 0.0;
#pragma unroll 4
    for (int i = threadIdx.x; i < n; i += THREADS) sum += of(row[i], i);
    sum = warp_total(sum);
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = 0.0;
    for (int w = 0; w < WARPS; w++) sum += parts[w];
    return sum;
}

// The place in whose stretch of the summed of(x, i), each at least 0, the share u in [0, 1) of their sum falls. Each
// warp sums a piece; the piece that is hit is cut into pieces in turn.
template <typename F> DEVICE int place(const float *__restrict__ row, int n, double u, F of) {
    __shared__ double parts[WARPS];
    int begin = 0, end = n, warp = threadIdx.x / 32;
    double left = -1.0;
    while (end - begin > 1) {
        int length = (end - begin + WARPS - 1) / WARPS, from = begin + warp * length;
        double sum = 0.0;
#pragma unroll 4
        for (int i = from + threadIdx.x % 32; i < min(from + length, end); i += 32) sum += of(row[i], i);
        sum = warp_total(sum);
        __syncthreads();
        if (threadIdx.x % 32 == 0) parts[warp] = sum;
        __syncthreads();
        if (left < 0.0) {
            left = 0.0;
            for (int w = 0; w < WARPS; w++) left += parts[w];
            left *= u;
        }
        // Where rounding leaves a little beyond the end, the last piece that weighs anything.
        int hit = 0;
        double before = 0.0, start = 0.0;
        for (int w = 0; w < WARPS; w++) {
            if (parts[w] > 0.0) {
                hit = w;
                start = before;
                if (left < before + parts[w]) break;
            }
            before += parts[w];
        }
        left -= start;
        begin += hit * length;
        end = min(begin + length, end);
    }
    return begin;
}

// The largest of the row with its place, the first among equals; or the first NaN's place.
DEVICE float largest(const float *__restrict__ row, int n, int *at, int *nan) {
    __shared__ float values[WARPS];
    __shared__ int places[WARPS], nans[WARPS];
    float most = -INF;
    int first = n, broken = n;
    for (int i = threadIdx.x; i < n; i += THREADS) {
        float x = row[i];
        if (x != x) broken = min(broken, i);
        if (x > most || first == n) {
            most = x;
            first = i;
        }
    }
    for (int o = 16; o > 0; o /= 2) {
        float other = __shfl_xor_sync(FULL, most, o);
        int place = __shfl_xor_sync(FULL, first, o);
        broken = min(broken, __shfl_xor_sync(FULL, broken, o));
        if (other > most || (other == most && place < first)) {
            most = other;
            first = place;
        }
    }
    __syncthreads();
    if (threadIdx.x % 32 == 0) {
        values[threadIdx.x / 32] = most;
        places[threadIdx.x / 32] = first;
        nans[threadIdx.x / 32] = broken;
    }
    __syncthreads();
    most = values[0];
    *at = places[0];
    *nan = nans[0];
    for (int w = 1; w < WARPS; w++) {
        *nan = min(*nan, nans[w]);
        if (values[w] > most || (values[w] == most && places[w] < *at)) {
            most = values[w];
            *at = places[w];
        }
    }
    return most;
}

// The largest threshold, in the order of `ordered`, that at least k numbers reach.
DEVICE unsigned kth_largest(const float *__restrict__ row, int n, int k, float most) {
    unsigned low = 0, high = ordered(most);
    while (low < high) {
        unsigned middle = low + (high - low + 1) / 2;
        double reach = total(row, n, [=](float x, int) { return ordered(x) >= middle ? 1.0 : 0.0; });
        if (reach == k) return middle;
        if (reach > k) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return low;
}

// Tokens by their distance from the largest: those nearer than `edge` stay, of those at it the ones up to `last`.
struct Nucleus {
    unsigned edge;
    int last;
};

// The smallest set of most probable tokens whose share of the weight of those that reach `kth` is top_p.
DEVICE Nucleus nucleus(
    const float *__restrict__ row, int n, float most, float factor, unsigned kth, double top_p
) {
    auto distance = [=](float x) { return __float_as_uint(fabsf(x - most)); };
    auto weight = [=](float x) { return ordered(x) >= kth ? (double)expf((x - most) * factor) : 0.0; };
    double goal = top_p * total(row, n, [=](float x, int) { return weight(x); });
    unsigned low = 0, high = 0x7f800000u;
    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        double sum = total(row, n, [=](float x, int) { return distance(x) <= middle ? weight(x) : 0.0; });
        if (sum >= goal) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    // A tie at the edge goes to the lower places.
    auto tie = [=](float x, int) { return distance(x) == low && ordered(x) >= kth ? 1.0 : 0.0; };
    double ties = total(row, n, tie), nearer = total(row, n, [=](float x, int) {
        return distance(x) < low ? weight(x) : 0.0;
    });
    double wanted = ceil((goal - nearer) / expf(-__uint_as_float(low) * factor));
    if (wanted < 1.0) wanted = 1.0;
    Nucleus kept = {low, n};
    if (wanted < ties) kept.last = place(row, n, (wanted - 0.5) / ties, tie);
    return kept;
}

// logits (rows, v) → out (blocks, v): the rows of `given`, the logits of tokens in seen[starts[b]..starts[b + 1]]
// divided by the penalty where they are positive, else multiplied.
KERNEL sample_penalise(
    const float *logits, const Given *given, const unsigned *starts, const unsigned *seen, float *out, int v,
    float penalty
) {
    const float *row = logits + given[blockIdx.x].row * v;
    float *to = out + (long long)blockIdx.x * v;
    for (int i = threadIdx.x; i < v; i += blockDim.x) to[i] = row[i];
    __syncthreads();
    for (unsigned k = starts[blockIdx.x] + threadIdx.x; k < starts[blockIdx.x + 1]; k += blockDim.x) {
        unsigned token = seen[k];
        if (token < (unsigned)v) to[token] = row[token] > 0.0f ? row[token] / penalty : row[token] * penalty;
    }
}

// logits (rows, v) of the model, penalised (blocks, v) or null → out (blocks,). A factor of 0: the most probable token.
// k and top_p and min_p as in `model::generate::Decoding`; k is 0 or less than v.
KERNEL __launch_bounds__(1024, 1) sample_draw(
    const float *logits, const float *penalised, const Given *given, Found *out, int v, float factor, int k,
    double top_p, double min_p
) {
    const float *own = logits + given[blockIdx.x].row * v;
    const float *row = penalised ? penalised + (long long)blockIdx.x * v : own;
    int token, nan;
    float most = largest(row, v, &token, &nan), peak = most;
    Found found = {(unsigned)token, 0};
    if (nan < v || fabsf(most) == INF) {
        found.token = nan < v ? BROKEN : EMPTY;
        found.logp = nan;
        if (threadIdx.x == 0) out[blockIdx.x] = found;
        return;
    }
    if (factor > 0.0f) {
        unsigned kth = k > 0 ? kth_largest(row, v, k, most) : 0;
        Nucleus near = {0x7f800000u, v};
        if (top_p < 1.0) near = nucleus(row, v, most, factor, kth, top_p);
        double u = (double)given[blockIdx.x].draw / 9007199254740992.0;
        found.token = place(row, v, u, [=](float x, int i) {
            unsigned distance = __float_as_uint(fabsf(x - most));
            bool kept = ordered(x) >= kth && (distance < near.edge || (distance == near.edge && i <= near.last));
            double weight = expf((x - most) * factor);
            return kept && weight >= min_p ? weight : 0.0;
        });
    }
    if (penalised) peak = largest(own, v, &token, &nan);
    double sum = total(own, v, [=](float x, int) { return (double)expf(x - peak); });
    found.logp = __float_as_uint((float)((double)(own[found.token] - peak) - log(sum)));
    if (threadIdx.x == 0) out[blockIdx.x] = found;
}
