/* One source for two compilers: NVRTC makes a kernel of it, a C compiler the same arithmetic on a processor.

   A block of THREADS threads works in phases, EACH_THREAD(t) ... JOIN. On a GPU the threads run a phase at the same
   time and wait for each other at its end; on a processor a loop runs one after the other. So nothing but shared
   memory lasts from phase to phase, and what stands between phases is the same for all threads and writes to
   variables of its own only. Sums over pixels are made in the same order by both: each thread's in single precision,
   those of a warp by halves, those of the warps in double precision. */

#define WARP 32
#define WARPS (THREADS / WARP)

#ifdef __CUDACC__

#define HELPER static __device__ __noinline__
#define SMALL_HELPER static __device__ __forceinline__
#define EACH_THREAD(t) { const int t = (int)threadIdx.x;
#define JOIN } __syncthreads();
#define TALLY(what, count)

/* The sum of a warp's values, by halves, in its first lane. */
SMALL_HELPER float warp_sum(float value)
{
  for (int apart = WARP / 2; apart > 0; apart /= 2)
    value += __shfl_down_sync(0xffffffffu, value, apart);
  return value;
}

#define ADD_UP(shared, which, t, value)                                 \
  do {                                                                  \
    const float of_warp = warp_sum(value);                              \
    if ((t) % WARP == 0) (shared)->parts[which][(t) / WARP] = of_warp;  \
  } while (0)

/* Wait until other thread blocks have set a flag; what they wrote before can then be read. */
SMALL_HELPER void await_flag(int *flag)
{
  while (*(volatile int *)flag == 0) __nanosleep(100);
  __threadfence();
}

SMALL_HELPER void raise_flag(int *flag)
{
  __threadfence();
  atomicExch(flag, 1);
}

SMALL_HELPER int take_ticket(int *next) { return atomicAdd(next, 1); }

#else

#include <math.h>
#include <sched.h>

#define HELPER static
#define SMALL_HELPER static inline
#define EACH_THREAD(t) for (int t = 0; t < THREADS; ++t) {
#define JOIN }

/* What was done, for the arithmetic in the documentation; made only where it is asked for. */
enum { SINGLE, DOUBLE, SCRATCH_BYTES, SHARED_BYTES, MODEL_BYTES, DRAWN_IMAGES, STEPS, TALLIES };
#ifdef COUNT_WORK
static double tallies[TALLIES];
void read_tallies(double *out)
{
  for (int i = 0; i < TALLIES; ++i) out[i] = tallies[i], tallies[i] = 0.0;
}
#define TALLY(what, count) (tallies[what] += (double)(count))
#else
#define TALLY(what, count)
#endif

/* By halves, as lanes of a warp exchange values. */
static inline void add_up(float *lanes, float *parts, int t, float value)
{
  lanes[t % WARP] = value;
  if (t % WARP == WARP - 1) {
    for (int apart = WARP / 2; apart > 0; apart /= 2)
      for (int lane = 0; lane < apart; ++lane) lanes[lane] += lanes[lane + apart];
    parts[t / WARP] = lanes[0];
  }
}

#define ADD_UP(shared, which, t, value) \
  add_up((shared)->lanes[which], (shared)->parts[which], t, value)

static inline void await_flag(int *flag)
{
  while (__atomic_load_n(flag, __ATOMIC_ACQUIRE) == 0) sched_yield();
}

static inline void raise_flag(int *flag) { __atomic_store_n(flag, 1, __ATOMIC_RELEASE); }

static inline int take_ticket(int *next) { return __atomic_fetch_add(next, 1, __ATOMIC_RELAXED); }

#endif

SMALL_HELPER int least(int a, int b) { return a < b ? a : b; }
SMALL_HELPER int most(int a, int b) { return a > b ? a : b; }
SMALL_HELPER double least_of(double a, double b) { return a < b ? a : b; }
SMALL_HELPER double most_of(double a, double b) { return a > b ? a : b; }
