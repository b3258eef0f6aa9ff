/* Attention of a frame's tokens to remembered maps, on a CPU: exact, and without ever making a key.
 *
 * RoPE is axial: it turns one half of a key's channels by its column x, the other half by its row y. So the score of query i
 * and the key that memory m at (x, y) makes, q_i . R(x, y) (W m + b), is (A_i(x) + B_i(y)) . m + a_i(x) + b_i(y), where
 * A_i(x) = W' R(-x) q_i takes the columns' half of the channels and B_i(y) the rows' half. A and B are one small table per
 * query, used by all maps, and the product has the memory's few channels instead of the key's many.
 *
 * Queries go LANES at a time, one per vector lane; what is the same for all of them (weights, memories) is a scalar.
 * Scores are powers of two less a shift per query, which the caller has put into the queries and the tables. A score so far
 * above its shift that its weight overflows gives infinity, which the caller must look for.
 */
#include <stdint.h>
#include <string.h>

#define WIDTH 16
#define LANES (2 * WIDTH)
#define MAPS_AT_ONCE 7
#define COLUMNS_AT_ONCE 8

typedef float vec __attribute__((vector_size(4 * WIDTH)));
typedef int32_t ivec __attribute__((vector_size(4 * WIDTH)));
typedef struct { vec low, high; } lanes; /* one number for each of LANES queries */

#define INLINE static inline __attribute__((always_inline))

INLINE vec choose(ivec condition, vec yes, vec no)
{
    return (vec)((condition & (ivec)yes) | (~condition & (ivec)no));
}

/* 2^x: the integer part goes into the exponent's bits, a polynomial does the rest (relative error 2e-7). */
INLINE vec exp2_vec(vec x)
{
    x = choose(x < -126.0f, (vec){} - 126.0f, x);
    x = choose(x > 128.0f, (vec){} + 128.0f, x);
    const vec magic = (vec){} + 12582912.0f; /* 1.5 * 2^23: adding it leaves the nearest integer in the low bits */
    vec shifted = x + magic;
    ivec whole = (ivec)shifted - (ivec)magic;
    vec f = x - (shifted - magic);
    vec p = 1.535336188319500e-4f * f + 1.339887440266574e-3f;
    p = p * f + 9.618437357674640e-3f;
    p = p * f + 5.550332471162809e-2f;
    p = p * f + 2.402264791363012e-1f;
    p = p * f + 6.931472028550421e-1f;
    p = p * f + 1.0f;
    return p * (vec)((whole + 127) << 23);
}

/* out[c] = sum over k of weight[k][c] * r[k], for a few adjacent columns c. */
INLINE void project_columns(int columns, lanes *out, const lanes *r, int depth, const float *weight, int stride)
{
    lanes sum[COLUMNS_AT_ONCE];
    for (int c = 0; c < columns; c++)
        sum[c] = (lanes){{}, {}};
    for (int k = 0; k < depth; k++)
        for (int c = 0; c < columns; c++) {
            sum[c].low += r[k].low * weight[k * stride + c];
            sum[c].high += r[k].high * weight[k * stride + c];
        }
    for (int c = 0; c < columns; c++)
        out[c] = sum[c];
}

/* The table of one axis: for each of its `places`, `columns` numbers per query, of which the last is the bias.
 * query: first halves of `pairs` channel pairs, then the second halves; cosines and sines [places][pairs];
 * weight [2 * pairs][columns], in the same order. */
static void make_table(lanes *table, const lanes *first, const lanes *second, int places, int pairs, const float *cosines,
                       const float *sines, const float *weight, int columns, lanes *turned)
{
    for (int place = 0; place < places; place++, table += columns, cosines += pairs, sines += pairs) {
        for (int p = 0; p < pairs; p++) { /* turned back by the key's angle */
            turned[p].low = first[p].low * cosines[p] + second[p].low * sines[p];
            turned[p].high = first[p].high * cosines[p] + second[p].high * sines[p];
            turned[pairs + p].low = second[p].low * cosines[p] - first[p].low * sines[p];
            turned[pairs + p].high = second[p].high * cosines[p] - first[p].high * sines[p];
        }
        int c = 0;
        for (; c + COLUMNS_AT_ONCE <= columns; c += COLUMNS_AT_ONCE)
            project_columns(COLUMNS_AT_ONCE, table + c, turned, 2 * pairs, weight + c, columns);
        for (; c < columns; c++)
            project_columns(1, table + c, turned, 2 * pairs, weight + c, columns);
    }
}

/* One place of `maps` maps: scores, weights, and the weighted sum of values; a map's keys and values are `stride` behind the
 * map's before it. */
INLINE void read_place(int maps, const lanes *of_x, const lanes *of_y, int channels, const float *keys, const float *values,
                       int64_t stride, lanes *weighted, lanes *total)
{
    lanes weight[MAPS_AT_ONCE];
    for (int m = 0; m < maps; m++) {
        weight[m].low = of_x[channels].low + of_y[channels].low;
        weight[m].high = of_x[channels].high + of_y[channels].high;
    }
    for (int c = 0; c < channels; c++) {
        lanes q = {of_x[c].low + of_y[c].low, of_x[c].high + of_y[c].high};
        for (int m = 0; m < maps; m++) {
            weight[m].low += q.low * keys[m * stride + c];
            weight[m].high += q.high * keys[m * stride + c];
        }
    }
    for (int m = 0; m < maps; m++) {
        weight[m].low = exp2_vec(weight[m].low);
        weight[m].high = exp2_vec(weight[m].high);
        total->low += weight[m].low;
        total->high += weight[m].high;
    }
    for (int c = 0; c < channels; c++) {
        lanes sum = weighted[c];
        for (int m = 0; m < maps; m++) {
            sum.low += weight[m].low * values[m * stride + c];
            sum.high += weight[m].high * values[m * stride + c];
        }
        weighted[c] = sum;
    }
}

/* Numbers that the scratch memory of one call must hold. */
int64_t scratch_floats(int height, int width, int pairs, int channels)
{
    return (int64_t)LANES * ((height + width) * (channels + 1) + 8 * pairs + channels + 1);
}

/* What one call is given, and how far its threads are. */
typedef struct {
    const float *queries;
    int64_t num_queries, end;
    int height, width, pairs, channels, maps;
    const float *cos_x, *sin_x, *cos_y, *sin_y, *weight_x, *weight_y, *keys, *values, *shift;
    float *weighted, *total, *scratch;
    int64_t next, thread; /* the first queries, and the scratch memory, that no thread has taken */
} Reading;

/* The LANES queries from `start` on. */
static void read_queries(const Reading *r, int64_t start, float *scratch)
{
    const int height = r->height, width = r->width, pairs = r->pairs, channels = r->channels, columns = channels + 1;
    const int64_t stride = (int64_t)height * width * channels;
    lanes *of_x = (lanes *)scratch, *of_y = of_x + width * columns, *query = of_y + height * columns;
    lanes *turned = query + 4 * pairs, *weighted = turned + 4 * pairs, *total = weighted + channels;
    for (int k = 0; k < 4 * pairs; k++)
        memcpy(query + k, r->queries + k * r->num_queries + start, sizeof(lanes));
    make_table(of_x, query, query + 2 * pairs, width, pairs, r->cos_x, r->sin_x, r->weight_x, columns, turned);
    make_table(of_y, query + pairs, query + 3 * pairs, height, pairs, r->cos_y, r->sin_y, r->weight_y, columns, turned);
    lanes down;
    memcpy(&down, r->shift + start, sizeof(lanes));
    for (int y = 0; y < height; y++) {
        of_y[y * columns + channels].low -= down.low;
        of_y[y * columns + channels].high -= down.high;
    }
    memset(weighted, 0, sizeof(lanes) * columns); /* and the total behind it */
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            const int64_t place = ((int64_t)y * width + x) * channels;
            for (int m = 0; m < r->maps; m += MAPS_AT_ONCE) {
                const float *key = r->keys + place + m * stride, *value = r->values + place + m * stride;
#define READ(n) read_place(n, of_x + x * columns, of_y + y * columns, channels, key, value, stride, weighted, total)
                switch (r->maps - m) {
                case 1: READ(1); break;
                case 2: READ(2); break;
                case 3: READ(3); break;
                case 4: READ(4); break;
                case 5: READ(5); break;
                case 6: READ(6); break;
                default: READ(MAPS_AT_ONCE);
                }
            }
        }
    for (int lane = 0; lane < LANES; lane++) {
        for (int c = 0; c < channels; c++)
            r->weighted[(start + lane) * channels + c] = ((const float *)(weighted + c))[lane];
        r->total[start + lane] = ((const float *)total)[lane];
    }
}

/* One thread's share: whatever is left, LANES queries at a time. */
static void take_queries(void *given)
{
    Reading *r = given;
    int64_t thread = __atomic_fetch_add(&r->thread, 1, __ATOMIC_RELAXED), start;
    float *scratch = r->scratch + thread * scratch_floats(r->height, r->width, r->pairs, r->channels);
    while ((start = __atomic_fetch_add(&r->next, LANES, __ATOMIC_RELAXED)) < r->end)
        read_queries(r, start, scratch);
}

/* For queries `begin` to `end` of one row (multiples of LANES, padded): weighted [queries][channels], total [queries].
 *
 * queries [4 * pairs][queries]: first halves of the pairs that turn with x, of those that turn with y, then second halves.
 * cos_x, sin_x [width][pairs], cos_y, sin_y [height][pairs]; weight_x, weight_y [2 * pairs][channels + 1], bias last.
 * keys and values [maps][height * width][channels]; shift [queries].
 * scratch: `scratch_floats` numbers for each thread, 64-byte aligned.
 * parallel: GOMP_parallel of the OpenMP that everything else in the process uses; not asked for a single thread. */
void read_maps(const float *queries, int64_t num_queries, int64_t begin, int64_t end, int height, int width, int pairs,
               int channels, int maps, const float *cos_x, const float *sin_x, const float *cos_y, const float *sin_y,
               const float *weight_x, const float *weight_y, const float *keys, const float *values, const float *shift,
               float *weighted, float *total, float *scratch, int threads,
               void (*parallel)(void (*)(void *), void *, unsigned, unsigned))
{
    Reading reading = {queries, num_queries, end, height, width, pairs, channels, maps, cos_x, sin_x, cos_y, sin_y,
                       weight_x, weight_y, keys, values, shift, weighted, total, scratch, begin, 0};
    if (threads == 1)
        take_queries(&reading);
    else
        parallel(take_queries, &reading, threads, 0);
}
