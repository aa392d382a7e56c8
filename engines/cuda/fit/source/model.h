/* The PSF model, and images of a particle in a rectangle: `refine.rendering` and `refine.spline`, equation (1). */

#define PLAIN (-1) /* a cell: the mean spline alone */
#define SUMS 26    /* most sums over pixels that are made at a time */
#define SIZE (4 * MEMBERS + GROUND)

/* As `refine.arguments.Psf`: the spline (nodes, size, size), modes (modes, nodes, size, size) in whole steps, their
   weights (cells, modes), the extent (nodes, 2) in px. */
typedef struct {
  const float *coefficients;
  const short *modes;
  const float *weights;
  const int *extent;
  int nodes, size, count, rows, columns, levels;
  double first_um, step_um, min_um, max_um, cell_tall, cell_wide, faint, bright, origin_y, origin_x;
} Psf;

/* What the threads of a block share. */
typedef struct {
  double work[SIZE * SIZE]; /* upper triangle and diagonal: the matrix; lower one: its decomposition */
  double root[SIZE];        /* the decomposition's diagonal */
  double right[SIZE], step[SIZE], carried[SIZE];
  double theta[2][MEMBERS][4], ground[2][GROUND], start[4];
  double flat[GROUND * GROUND]; /* the plane's part of the matrix */
  double sums[SUMS];
  double chi, count, damping, small, scale;
  float parts[SUMS][WARPS];
#ifndef __CUDACC__
  float lanes[SUMS][WARP];
#endif
  float taps[3][2][TAPS]; /* weights and slopes along depth, rows and columns */
  float plane[2 * PLANE];
  int first[3]; /* node, row and column of the second tap */
  int boxes[MEMBERS][BOX], own[MEMBERS], cells[MEMBERS];
  int drawn[BOX], held[MEMBERS], region[4];
  double covariance[16 * MEMBERS], fit[2 * MEMBERS];
  int goes_on, accepted, moved, late, ticket;
} Shared;

/* The sums of the warps, in double precision. */
HELPER void finish_sums(Shared *s, int count)
{
  EACH_THREAD(t)
    if (t < count) {
      double total = 0.0;
      for (int w = 0; w < WARPS; ++w) total += (double)s->parts[t][w];
      s->sums[t] = total;
    }
  JOIN
  TALLY(DOUBLE, count * WARPS);
}

SMALL_HELPER int mirror(int index, int size)
{
  if (index < 0) index = -index;
  if (index >= size) index = 2 * (size - 1) - index;
  return least(most(index, 0), size - 1);
}

SMALL_HELPER int cell_of(const Psf *psf, const double *theta)
{
  int row = (int)((psf->origin_y + theta[Y] + 0.5) / psf->cell_tall);
  int column = (int)((psf->origin_x + theta[X] + 0.5) / psf->cell_wide);
  int level = 0;
  row = least(most(row, 0), psf->rows - 1);
  column = least(most(column, 0), psf->columns - 1);
  if (psf->levels > 1)
    level = (int)((log(most_of(theta[A], 1e-6)) - psf->faint) / (psf->bright - psf->faint) * psf->levels);
  level = least(most(level, 0), psf->levels - 1);
  return (level * psf->rows + row) * psf->columns + column;
}

/* `refine.rendering.set_box` in an image of `tall` x `wide` pixels; by one thread. */
HELPER void set_box(const Psf *psf, const double *theta, int tall, int wide, int *box)
{
  const int half = psf->size / 2, last = psf->nodes - 1;
  int low = (int)((theta[Z] - SPARE_UM - psf->first_um) / psf->step_um), high, down = 0, across = 0, y, x;
  low = least(most(low, 0), last);
  high = (int)((theta[Z] + SPARE_UM - psf->first_um) / psf->step_um) + 1;
  high = least(most(high, low), last);
  for (int j = low; j <= high; ++j) {
    down = most(down, psf->extent[2 * j]);
    across = most(across, psf->extent[2 * j + 1]);
  }
  y = (int)rint(theta[Y]);
  x = (int)rint(theta[X]);
  down = least(down, half - 1);
  across = least(across, half - 1);
  box[TOP] = most(y - down, 0);
  box[BOTTOM] = least(y + down + 1, tall);
  box[LEFT] = most(x - across, 0);
  box[RIGHT] = least(x + across + 1, wide);
  box[CELL] = psf->count > 0 ? cell_of(psf, theta) : 0;
}

SMALL_HELPER int area_of(const int *box) { return (box[BOTTOM] - box[TOP]) * (box[RIGHT] - box[LEFT]); }

/* B at the nodes -1, 0, 1, 2 as seen from `t` behind node 0, and B'. */
SMALL_HELPER void spline_weights(double t, double per, float value[TAPS], float slope[TAPS])
{
  const double s = 1.0 - t;
  value[0] = (float)(s * s * s / 6.0);
  value[1] = (float)((3.0 * t * t * t - 6.0 * t * t + 4.0) / 6.0);
  value[2] = (float)((3.0 * s * s * s - 6.0 * s * s + 4.0) / 6.0);
  value[3] = (float)(t * t * t / 6.0);
  slope[0] = (float)(per * (-s * s / 2.0));
  slope[1] = (float)(per * ((3.0 * t * t - 4.0 * t) / 2.0));
  slope[2] = (float)(per * ((-3.0 * s * s + 4.0 * s) / 2.0));
  slope[3] = (float)(per * (t * t / 2.0));
}

/* Fill `out` (4, H x W) with the image of a particle at `theta` in shared memory, in its rectangle `box`, also
   there, of the `cell`: value and, with `gradients`, derivatives by x, y (px) and z (um). `spare` is work space for
   planes that are too large for shared memory. */
HELPER void render(Shared *s, const Psf *psf, const double *theta, const int *box, int cell, int gradients,
                   float *spare, float *out)
{
  const int tall = box[BOTTOM] - box[TOP], wide = box[RIGHT] - box[LEFT];
  const int rows = tall + TAPS - 1, pitch = wide + TAPS - 1, area = tall * wide, size = psf->size;
  float *const value = rows * pitch <= PLANE ? s->plane : spare, *const by_z = value + rows * pitch;
  const int modes = cell == PLAIN ? 0 : psf->count;
  const float *const weights = psf->weights + (modes > 0 ? cell * psf->count : 0);
  EACH_THREAD(t)
    if (t == 0) {
      const double z = least_of(most_of(theta[Z], psf->min_um), psf->max_um);
      const double node = (z - psf->first_um) / psf->step_um;
      s->first[0] = least(most((int)node, 0), psf->nodes - 2);
      spline_weights(node - s->first[0], 1.0 / psf->step_um, s->taps[0][0], s->taps[0][1]);
    } else if (t < 3) {
      const double start = size / 2 + (t == 1 ? box[TOP] - theta[Y] : box[LEFT] - theta[X]);
      s->first[t] = (int)floor(start);
      spline_weights(start - s->first[t], -1.0, s->taps[t][0], s->taps[t][1]);
    }
  JOIN
  EACH_THREAD(t)
    const float *const of = s->taps[0][0], *const per = s->taps[0][1];
    int node[TAPS];
    for (int k = 0; k < TAPS; ++k) node[k] = mirror(s->first[0] - 1 + k, psf->nodes);
    for (int p = t; p < rows * pitch; p += THREADS) {
      const int place = mirror(s->first[1] - 1 + p / pitch, size) * size + mirror(s->first[2] - 1 + p % pitch, size);
      float found = 0.0f, slope = 0.0f;
      for (int k = 0; k < TAPS; ++k) {
        float c = 0.0f;
        for (int m = 0; m < modes; ++m)
          c += weights[m] * (float)psf->modes[(m * psf->nodes + node[k]) * size * size + place];
        c += psf->coefficients[node[k] * size * size + place];
        found += of[k] * c;
        slope += per[k] * c;
      }
      value[p] = found;
      by_z[p] = slope;
    }
  JOIN
  EACH_THREAD(t)
    /* a thread goes down a part of a column and keeps the last four rows' sums */
    const int parts = most(1, least(THREADS / most(wide, 1), tall));
    const float *const wy = s->taps[1][0], *const sy = s->taps[1][1];
    const float *const wx = s->taps[2][0], *const sx = s->taps[2][1];
    for (int u = t; u < parts * wide; u += THREADS) {
      const int column = u % wide, part = u / wide, from = part * tall / parts, to = (part + 1) * tall / parts;
      float v[TAPS] = {0.0f, 0.0f, 0.0f, 0.0f}, x[TAPS] = {0.0f, 0.0f, 0.0f, 0.0f}, z[TAPS] = {0.0f, 0.0f, 0.0f, 0.0f};
      for (int i = from; i < to + TAPS - 1; ++i) {
        const float *const q = value + i * pitch + column, *const d = by_z + i * pitch + column;
        for (int k = 0; k < TAPS - 1; ++k) v[k] = v[k + 1], x[k] = x[k + 1], z[k] = z[k + 1];
        v[3] = wx[0] * q[0] + wx[1] * q[1] + wx[2] * q[2] + wx[3] * q[3];
        if (gradients) {
          x[3] = sx[0] * q[0] + sx[1] * q[1] + sx[2] * q[2] + sx[3] * q[3];
          z[3] = wx[0] * d[0] + wx[1] * d[1] + wx[2] * d[2] + wx[3] * d[3];
        }
        if (i >= from + TAPS - 1) {
          float *const at = out + (i - TAPS + 1) * wide + column;
          at[0] = wy[0] * v[0] + wy[1] * v[1] + wy[2] * v[2] + wy[3] * v[3];
          if (gradients) {
            at[area] = wy[0] * x[0] + wy[1] * x[1] + wy[2] * x[2] + wy[3] * x[3];
            at[2 * area] = sy[0] * v[0] + sy[1] * v[1] + sy[2] * v[2] + sy[3] * v[3];
            at[3 * area] = wy[0] * z[0] + wy[1] * z[1] + wy[2] * z[2] + wy[3] * z[3];
          }
        }
      }
    }
  JOIN
  TALLY(DOUBLE, 3 * 40);
  TALLY(SINGLE, rows * pitch * (16 + 8 * modes));
  TALLY(MODEL_BYTES, rows * pitch * 4 * (4 + 2 * modes));
  TALLY(SHARED_BYTES, rows * pitch * 8 + (tall + 3 * least(THREADS / most(wide, 1), tall)) * wide * (gradients ? 32 : 16));
  TALLY(SINGLE, (tall + 3 * least(THREADS / most(wide, 1), tall)) * wide * (gradients ? 21 : 7) + area * (gradients ? 28 : 7));
  TALLY(SCRATCH_BYTES, area * (gradients ? 16 : 4));
  TALLY(DRAWN_IMAGES, 1);
}
