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
#define WAIT_FOR_ALL __syncthreads()
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

/* Polls before a wait is given up: about a second, while a launch takes milliseconds. Windows resets a GPU after two. */
#define MOST_POLLS 5000000

/* Wait until another thread block has set a flag; what it wrote before can then be read. 0 where it takes too long. */
SMALL_HELPER int await_flag(int *flag)
{
  for (int polls = 0; *(volatile int *)flag == 0; ++polls) {
    if (polls == MOST_POLLS) return 0;
    __nanosleep(100);
  }
  __threadfence();
  return 1;
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
#define JOIN }
#define WAIT_FOR_ALL
/* The order of threads within a phase must not matter; tests turn it round. */
#ifdef LAST_THREAD_FIRST
#define EACH_THREAD(t) for (int t = THREADS - 1; t >= 0; --t) {
#define LAST_LANE 0
#else
#define EACH_THREAD(t) for (int t = 0; t < THREADS; ++t) {
#define LAST_LANE (WARP - 1)
#endif

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
  if (t % WARP == LAST_LANE) {
    for (int apart = WARP / 2; apart > 0; apart /= 2)
      for (int lane = 0; lane < apart; ++lane) lanes[lane] += lanes[lane + apart];
    parts[t / WARP] = lanes[0];
  }
}

#define ADD_UP(shared, which, t, value) \
  add_up((shared)->lanes[which], (shared)->parts[which], t, value)

#ifndef MOST_POLLS
#define MOST_POLLS 100000000
#endif

static inline int await_flag(int *flag)
{
  for (int polls = 0; __atomic_load_n(flag, __ATOMIC_ACQUIRE) == 0; ++polls) {
    if (polls == MOST_POLLS) return 0;
    sched_yield();
  }
  return 1;
}

static inline void raise_flag(int *flag) { __atomic_store_n(flag, 1, __ATOMIC_RELEASE); }

static inline int take_ticket(int *next) { return __atomic_fetch_add(next, 1, __ATOMIC_RELAXED); }

#endif

SMALL_HELPER int least(int a, int b) { return a < b ? a : b; }
SMALL_HELPER int most(int a, int b) { return a > b ? a : b; }
SMALL_HELPER double least_of(double a, double b) { return a < b ? a : b; }
SMALL_HELPER double most_of(double a, double b) { return a > b ? a : b; }
