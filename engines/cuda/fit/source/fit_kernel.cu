/* All blocks of a frame in one launch: what one sweep of `refine.frame.fit_frame` does.

   Thread blocks take tasks, one block of particles each, in the order in which the processor would fit them. A task
   waits for those earlier ones whose particles may have come near it, or that look at what it may change; they are all
   taken by thread blocks that run, so that no wait is for ever. Where the normal equations of several particles turn out
   singular, those behind the first are fitted one by one in the same sweep: tasks that else have nothing to do. Images of particles outside a block are known from the
   frame's `total`, as it was before the launch; what earlier tasks have changed in it is drawn anew. `layout.h` holds
   the places in arrays of numbers and the constants of `refine`; `fit_layout.py` writes it. */

#include "threads.h"
#include "layout.h"
#include "model.h"
#include "block.h"

#ifdef __CUDACC__
#define KERNEL extern "C" __global__ void __launch_bounds__(THREADS, AT_A_TIME)
#define SLOT ((int)blockIdx.x)
#define LAST_ARGUMENT
#else
#define KERNEL void
#define SLOT slot
#define LAST_ARGUMENT , int slot
#endif

/* Add `factor` times the image of a particle at s->start, in the rectangle s->drawn and its cell, to a rectangle of the
   frame with `pitch` values a row. */
HELPER void add_image(Shared *s, const Psf *psf, const Block *b, int is_plain, float factor, float *out, int top, int left,
                      int tall, int wide)
{
  const int *const box = s->drawn;
  const int from = most(top, box[TOP]), to = least(top + tall, box[BOTTOM]);
  const int low = most(left, box[LEFT]), high = least(left + wide, box[RIGHT]);
  if (to <= from || high <= low) return;
  render(s, psf, s->start, box, is_plain ? PLAIN : box[CELL], 0, b->spare, b->single);
  EACH_THREAD(t)
    const float a = (float)(s->start[A] * (double)factor);
    const int width = high - low;
    for (int p = t; p < (to - from) * width; p += THREADS) {
      const int i = from + p / width, j = low + p % width;
      out[(i - top) * wide + j - left] += a * b->single[(i - box[TOP]) * (box[RIGHT] - box[LEFT]) + j - box[LEFT]];
    }
  JOIN
  TALLY(SINGLE, (to - from) * (high - low) * 2);
  TALLY(SCRATCH_BYTES, (to - from) * (high - low) * 12);
}

/* Take a particle `theta` for `add_image`, in its rectangle: that of `box`, or the one of where it is. */
HELPER void take(Shared *s, const Psf *psf, const int *head, const double *theta, const int *box)
{
  WAIT_FOR_ALL; /* some may still look at the one before, which `add_image` had no pixel of */
  EACH_THREAD(t)
    if (t == 0) {
      for (int i = 0; i < 4; ++i) s->start[i] = theta[i];
      if (box)
        for (int i = 0; i < BOX; ++i) s->drawn[i] = box[i];
      else
        set_box(psf, s->start, head[TALL], head[WIDE], s->drawn);
    }
  JOIN
}

/* Data and weights of a block, (2) in `refine.joint_fit`, and the images of its particles at their starts. */
HELPER void prepare(Shared *s, const Psf *psf, const Block *b, const int *head, const int *task, const int *lists,
                    const int *rows, const double *scene, const double *starts, const double *results,
                    const float *pixels)
{
  const int n = b->n, area = b->tall * b->wide;
  const float *const seen = pixels + task[DATA], *const total = seen + task[HIGH] * task[ACROSS];
  float *const change = b->residual[0], *const own = b->residual[1];
  EACH_THREAD(t)
    for (int p = t; p < area; p += THREADS) change[p] = own[p] = 0.0f;
  JOIN
  for (int k = 0; k < n; ++k) {
    const int row = lists[task[FIRST] + k], *const facts = rows + row * ROW;
    take(s, psf, head, starts + 4 * row, facts + OWN_BOX);
    add_image(s, psf, b, facts[IS_PLAIN], -1.0f, change, b->top, b->left, b->tall, b->wide);
    render(s, psf, s->theta[0][k], s->boxes[k], s->cells[k], 1, b->spare, images_of(s, b, 0, k));
    EACH_THREAD(t)
      const int *const box = s->boxes[k];
      const int wide = box[RIGHT] - box[LEFT];
      const float a = (float)s->theta[0][k][A], *const image = images_of(s, b, 0, k);
      for (int p = t; p < area_of(box); p += THREADS)
        own[(p / wide + box[TOP] - b->top) * b->wide + p % wide + box[LEFT] - b->left] += a * image[p];
    JOIN
  }
  for (int k = 0; k < task[NEARBY]; ++k) {
    const int row = lists[task[NEAR] + k], *const facts = rows + row * ROW;
    take(s, psf, head, starts + 4 * row, facts + OWN_BOX);
    add_image(s, psf, b, facts[IS_PLAIN], -1.0f, change, b->top, b->left, b->tall, b->wide);
    take(s, psf, head, results + RESULT * row + THETA, 0);
    add_image(s, psf, b, 0, 1.0f, change, b->top, b->left, b->tall, b->wide);
  }
  EACH_THREAD(t)
    const float read = (float)scene[READ], shot = (float)scene[SHOT], sign = (float)scene[SIGN];
    const float darkest = (float)LEAST_LIGHT + (read < 0.0f ? ((float)LEAST_LIGHT - 1.0f) * read / shot : 0.0f);
    for (int p = t; p < area; p += THREADS) {
      const int i = b->top + p / b->wide, j = b->left + p % b->wide;
      int counts = 0;
      for (int k = 0; k < n; ++k) {
        const int *const box = s->boxes[k];
        counts |= i >= box[TOP] && i < box[BOTTOM] && j >= box[LEFT] && j < box[RIGHT];
      }
      const int q = (i - task[CORNER_Y]) * task[ACROSS] + j - task[CORNER_X];
      b->weight[p] = 0.0f;
      if (counts) {
        const float light = 1.0f + sign * (total[q] + change[p] + own[p]);
        b->weight[p] = 1.0f / (read + shot * (light < darkest ? darkest : light));
      }
      b->data[p] = seen[q] - change[p];
    }
  JOIN
  TALLY(SINGLE, area * 12);
  TALLY(SCRATCH_BYTES, area * 40);
  fill_flat(s, b);
}

/* Whether a particle is where its rectangle still shows it. */
SMALL_HELPER int is_inside(const int *box, const double *theta)
{
  return box[LEFT] - 0.5 <= theta[X] && theta[X] <= box[RIGHT] - 0.5 && box[TOP] - 0.5 <= theta[Y] &&
         theta[Y] <= box[BOTTOM] - 0.5;
}

/* Write down how a block ended, and by how much its particles' images have changed, where the space is enough. What a
   fit that leaves its rectangle has found does not count. */
HELPER void finish(Shared *s, const Psf *psf, const Block *b, const int *head, const int *members, const int *rows,
                   const double *starts, double *results, float *deltas, int ended, int filled, int steps)
{
  EACH_THREAD(t)
    if (t < b->n) {
      double *const out = results + RESULT * members[t];
      if (is_inside(s->boxes[t], s->theta[0][t])) {
        for (int i = 0; i < 4; ++i) out[THETA + i] = s->theta[0][t][i];
        if (filled) {
          for (int i = 0; i < 16; ++i) out[COVARIANCE + i] = s->covariance[16 * t + i];
          for (int i = 0; i < 2; ++i) out[FIT + i] = s->fit[2 * t + i];
          out[FILLED] = 1.0;
        }
      }
      out[ENDED] = ended;
      out[TRIALS] += steps;
      if (ended == SINGULAR && b->n > 1) out[IS_SPLIT] = 1.0;
    }
  JOIN
  for (int k = 0; k < b->n; ++k) {
    const int row = members[k], *const facts = rows + row * ROW;
    float *const delta = deltas + facts[DELTA];
    const int top = facts[RECT_Y], left = facts[RECT_X], tall = facts[RECT_TALL], wide = facts[RECT_WIDE];
    EACH_THREAD(t)
      for (int p = t; p < tall * wide; p += THREADS) delta[p] = 0.0f;
    JOIN
    take(s, psf, head, starts + 4 * row, facts + OWN_BOX);
    add_image(s, psf, b, facts[IS_PLAIN], -1.0f, delta, top, left, tall, wide);
    take(s, psf, head, results + RESULT * row + THETA, 0);
    add_image(s, psf, b, 0, 1.0f, delta, top, left, tall, wide);
    EACH_THREAD(t)
      if (t == 0)
        results[RESULT * row + DRAWN] = s->drawn[TOP] >= top && s->drawn[LEFT] >= left &&
                                        s->drawn[BOTTOM] <= top + tall && s->drawn[RIGHT] <= left + wide;
    JOIN
  }
}

/* The rectangle that those of n particles cover, and where their images begin; by one thread. */
SMALL_HELPER void cover(Shared *s, int n)
{
  for (int i = 0; i < 4; ++i) s->region[i] = s->boxes[0][i];
  s->own[0] = 0;
  for (int k = 1; k < n; ++k) {
    const int *const box = s->boxes[k];
    s->region[TOP] = least(s->region[TOP], box[TOP]);
    s->region[BOTTOM] = most(s->region[BOTTOM], box[BOTTOM]);
    s->region[LEFT] = least(s->region[LEFT], box[LEFT]);
    s->region[RIGHT] = most(s->region[RIGHT], box[RIGHT]);
    s->own[k] = s->own[k - 1] + area_of(s->boxes[k - 1]);
  }
}

/* Take the particles of a block with their rectangles. */
HELPER void begin(Shared *s, const int *members, int n, const int *rows, const double *starts, double *results)
{
  EACH_THREAD(t)
    if (t < n) {
      const int *const facts = rows + members[t] * ROW;
      double *const out = results + RESULT * members[t];
      for (int i = 0; i < BOX; ++i) s->boxes[t][i] = facts[OWN_BOX + i];
      s->cells[t] = facts[OWN_BOX + CELL];
      for (int i = 0; i < 4; ++i) out[THETA + i] = s->theta[0][t][i] = starts[4 * members[t] + i];
      out[FILLED] = out[TRIALS] = out[IS_SPLIT] = out[IS_LOST] = 0.0;
    }
  JOIN
  EACH_THREAD(t)
    if (t == 0) cover(s, n);
  JOIN
}

/* Wait for the block that a particle is in; whether it was singular, so that the particle is to be fitted by itself. It
   is taken where it is now, if its rectangle is in that of its pixels. */
HELPER int begin_split(Shared *s, const Psf *psf, const int *head, const int *task, const int *members, const int *rows,
                       double *results, int *flags)
{
  const int *const facts = rows + members[0] * ROW;
  double *const out = results + RESULT * members[0];
  EACH_THREAD(t)
    if (t == 0) {
      s->late = !await_flag(flags + 1 + task[PARENT]);
      s->goes_on = !s->late && out[IS_SPLIT] > 0.0;
      if (s->goes_on) {
        int *const box = s->boxes[0];
        for (int i = 0; i < 4; ++i) s->theta[0][0][i] = out[THETA + i];
        set_box(psf, s->theta[0][0], head[TALL], head[WIDE], box);
        s->cells[0] = box[CELL];
        cover(s, 1);
        s->goes_on = box[TOP] >= facts[RECT_Y] && box[BOTTOM] <= facts[RECT_Y] + facts[RECT_TALL] &&
                     box[LEFT] >= facts[RECT_X] && box[RIGHT] <= facts[RECT_X] + facts[RECT_WIDE];
        if (!s->goes_on) out[IS_LOST] = 1.0;
      }
    }
  JOIN
  return s->goes_on;
}

/* Fit the blocks of `ints`; see `fit_layout` for what the arrays hold. `scratch` is work space, a part for each thread
   block. */
KERNEL fit_blocks(const float *coefficients, const short *modes, const float *weights, const int *extent,
                  const int *model_ints, const double *model_numbers, int *ints, const double *scene,
                  const float *pixels, double *results, float *deltas, float *scratch LAST_ARGUMENT)
{
#ifdef __CUDACC__
  __shared__ Shared shared;
#else
  Shared shared;
#endif
  Shared *const s = &shared;
  const int *const head = ints, *const rows = ints + head[ROWS_AT], *const lists = ints + head[LISTS_AT];
  int *const flags = ints + head[FLAGS_AT];
  const double *const starts = scene + SCENE;
  const Psf psf = {coefficients, modes, weights, extent, model_ints[NODES], model_ints[PIXELS], model_ints[MODES],
                   model_ints[ROWS], model_ints[COLUMNS], model_ints[LEVELS], model_numbers[FIRST_UM],
                   model_numbers[STEP_UM], model_numbers[MIN_UM], model_numbers[MAX_UM], model_numbers[CELL_TALL],
                   model_numbers[CELL_WIDE], model_numbers[FAINT], model_numbers[BRIGHT], scene[ORIGIN_Y],
                   scene[ORIGIN_X]};
  const long long room = 4LL * head[LARGEST_AREA] + 3LL * head[LARGEST_SINGLE] + 8LL * head[LARGEST_IMAGES];
  float *const space = scratch + SLOT * room;
  for (;;) {
    const int *task, *members;
    int ended = NOT_CONVERGED, filled = 0, steps = 0;
    Block b;
    EACH_THREAD(t)
      if (t == 0) {
        s->ticket = take_ticket(flags);
        s->late = 0;
      }
    JOIN
    if (s->ticket >= head[TASKS]) return;
    task = ints + head[TASKS_AT] + s->ticket * TASK;
    members = lists + task[FIRST];
    if (task[PARENT] >= 0 && !begin_split(s, &psf, head, task, members, rows, results, flags)) {
      EACH_THREAD(t)
        if (t == 0) {
          if (s->late) results[RESULT * members[0] + ENDED] = LATE;
          raise_flag(flags + 1 + s->ticket);
        }
      JOIN
      continue;
    }
    EACH_THREAD(t)
      for (int k = t; k < task[WAITING]; k += THREADS)
        if (!await_flag(flags + 1 + lists[task[WAITS] + k])) s->late = 1;
    JOIN
    if (task[PARENT] < 0) begin(s, members, task[COUNT], rows, starts, results);
    b.n = task[COUNT];
    b.top = s->region[TOP];
    b.left = s->region[LEFT];
    b.tall = s->region[BOTTOM] - b.top;
    b.wide = s->region[RIGHT] - b.left;
    b.precision = b.n > 1 ? scene[PRECISION] : 0.0;
    b.brightness = b.n > 1 ? scene[BRIGHTNESS] : 0.0;
    b.data = space;
    b.weight = b.data + head[LARGEST_AREA];
    b.residual[0] = b.weight + head[LARGEST_AREA];
    b.residual[1] = b.residual[0] + head[LARGEST_AREA];
    b.single = b.residual[1] + head[LARGEST_AREA];
    b.spare = b.single + head[LARGEST_SINGLE];
    b.drawn = b.spare + 2 * head[LARGEST_SINGLE];
    b.images = s->own[b.n - 1] + area_of(s->boxes[b.n - 1]);
    prepare(s, &psf, &b, head, task, lists, rows, scene, starts, results, pixels);
    for (int turn = 0; turn < 2; ++turn) {
      ended = fit_block(s, &psf, &b, s->covariance, s->fit, &steps);
      if (ended != SINGULAR) filled = 1;
      EACH_THREAD(t)
        if (t == 0) {
          s->moved = 0;
          for (int k = 0; k < b.n && psf.count > 0 && ended == CONVERGED && turn == 0; ++k) {
            const int cell = cell_of(&psf, s->theta[0][k]);
            s->moved |= cell != s->cells[k];
            s->cells[k] = cell;
          }
        }
      JOIN
      if (!s->moved) break;
      for (int k = 0; k < b.n; ++k)
        render(s, &psf, s->theta[0][k], s->boxes[k], s->cells[k], 1, b.spare, images_of(s, &b, 0, k));
    }
    finish(s, &psf, &b, head, members, rows, starts, results, deltas, s->late ? LATE : ended, filled, steps);
    EACH_THREAD(t)
      if (t == 0) raise_flag(flags + 1 + s->ticket);
    JOIN
  }
}
