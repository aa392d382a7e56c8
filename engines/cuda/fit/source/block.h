/* The joint fit of a block of particles: `refine.joint_fit` and `refine.normal_equations`, equations (1) to (5). */

/* A block while it is fitted: its rectangle in the frame, and work space: `data`, `weight` and two residuals (tall,
   wide), planes that shared memory is too small for, a single image, and two sets of all images with derivatives. */
typedef struct {
  int n, top, left, tall, wide, images;
  double precision, brightness; /* of the prior */
  float *data, *weight, *residual[2], *spare, *single, *drawn;
} Block;

/* F(i, j), i >= j, and its decomposition L(i, j), i > j, share a square; the diagonal of L is `root`. */
#define F(s, i, j) (s)->work[(j) * SIZE + (i)]
#define L(s, i, j) (s)->work[(i) * SIZE + (j)]

SMALL_HELPER float *images_of(const Shared *s, const Block *b, int set, int k)
{
  return b->drawn + 4 * (set * b->images + s->own[k]);
}

SMALL_HELPER float middle_of(int size) { return 0.5f * (float)(size - 1); }
SMALL_HELPER float scale_of(const Block *b) { return 2.0f / (float)most(b->tall, b->wide); }

/* (F + damping diag F) = L L^T; 0 where F is singular. */
HELPER int decompose(Shared *s, int size, double damping)
{
  for (int j = 0; j < size; ++j) {
    double pivot;
    EACH_THREAD(t)
      const int i = j + t;
      if (i < size) {
        double left = F(s, i, j) * (i == j ? 1.0 + damping : 1.0);
        for (int k = 0; k < j; ++k) left -= L(s, i, k) * L(s, j, k);
        s->carried[i] = left;
      }
    JOIN
    pivot = s->carried[j];
    if (!(pivot > LEAST_PIVOT * F(s, j, j))) return 0;
    EACH_THREAD(t)
      const int i = j + t;
      const double root = sqrt(pivot);
      if (i == j) s->root[j] = root;
      else if (i < size) L(s, i, j) = s->carried[i] / root;
    JOIN
    TALLY(DOUBLE, (size - j) * (2 * j + 2));
  }
  return 1;
}

/* `step` from `right`, with the decomposition. */
HELPER void substitute(Shared *s, int size)
{
  EACH_THREAD(t)
    if (t < size) s->carried[t] = s->right[t];
  JOIN
  for (int k = 0; k < size; ++k) {
    EACH_THREAD(t)
      if (t >= k && t < size) {
        const double found = s->carried[k] / s->root[k];
        if (t == k) s->step[k] = found;
        else s->carried[t] -= L(s, t, k) * found;
      }
    JOIN
  }
  EACH_THREAD(t)
    if (t < size) s->carried[t] = s->step[t];
  JOIN
  for (int k = size - 1; k >= 0; --k) {
    EACH_THREAD(t)
      if (t <= k) {
        const double found = s->carried[k] / s->root[k];
        if (t == k) s->step[k] = found;
        else s->carried[t] -= L(s, k, t) * found;
      }
    JOIN
  }
  TALLY(DOUBLE, 2 * size * (size + 1));
}

/* The image of all particles of a set of images, taken off the data with the plane: the residual, and sums over it:
   chi-square, and the plane's part of the right side. */
HELPER void fill_residual(Shared *s, const Block *b, int set)
{
  EACH_THREAD(t)
    const float g0 = (float)s->ground[set][0], g1 = (float)s->ground[set][1], g2 = (float)s->ground[set][2];
    const float scale = scale_of(b);
    float chi = 0.0f, r0 = 0.0f, r1 = 0.0f, r2 = 0.0f, sum = 0.0f, count = 0.0f;
    for (int p = t; p < b->tall * b->wide; p += THREADS) {
      const int i = p / b->wide, j = p % b->wide;
      const float u = scale * ((float)j - middle_of(b->wide)), v = scale * ((float)i - middle_of(b->tall));
      const float w = b->weight[p];
      float r = b->data[p] - (g0 + g1 * u + g2 * v), wr;
      for (int k = 0; k < b->n; ++k) {
        const int row = i + b->top - s->boxes[k][TOP], column = j + b->left - s->boxes[k][LEFT];
        const int width = s->boxes[k][RIGHT] - s->boxes[k][LEFT];
        if (row >= 0 && column >= 0 && column < width && row < s->boxes[k][BOTTOM] - s->boxes[k][TOP])
          r -= (float)s->theta[set][k][A] * images_of(s, b, set, k)[row * width + column];
      }
      b->residual[set][p] = r;
      wr = w * r;
      chi += wr * r;
      r0 += wr;
      r1 += wr * u;
      r2 += wr * v;
      if (w > 0.0f) sum += r, count += 1.0f;
    }
    ADD_UP(s, 0, t, chi);
    ADD_UP(s, 1, t, r0);
    ADD_UP(s, 2, t, r1);
    ADD_UP(s, 3, t, r2);
    ADD_UP(s, 4, t, sum);
    ADD_UP(s, 5, t, count);
  JOIN
  finish_sums(s, 6);
  TALLY(SINGLE, b->tall * b->wide * 20 + 2 * b->images);
  TALLY(SCRATCH_BYTES, b->tall * b->wide * 12 + 4 * b->images);
}

/* Weighed products of a particle's derivatives by x, y, z and brightness with one another (10), with the plane (12)
   and with the residual (4): to the matrix and the right side. */
HELPER void add_own(Shared *s, const Block *b, int set, int k)
{
  const int *const box = s->boxes[k];
  const int wide = box[RIGHT] - box[LEFT], area = area_of(box), o = 4 * k, n = b->n;
  EACH_THREAD(t)
    const float *const image = images_of(s, b, set, k);
    const float scale = scale_of(b);
    float xx = 0.0f, xy = 0.0f, xz = 0.0f, xv = 0.0f, yy = 0.0f, yz = 0.0f, yv = 0.0f, zz = 0.0f, zv = 0.0f;
    float vv = 0.0f, cx = 0.0f, cy = 0.0f, cz = 0.0f, cv = 0.0f, ux = 0.0f, uy = 0.0f, uz = 0.0f, uv = 0.0f;
    float dx = 0.0f, dy = 0.0f, dz = 0.0f, dv = 0.0f, rx = 0.0f, ry = 0.0f, rz = 0.0f, rv = 0.0f;
    for (int p = t; p < area; p += THREADS) {
      const int i = p / wide + box[TOP] - b->top, j = p % wide + box[LEFT] - b->left, q = i * b->wide + j;
      const float across = scale * ((float)j - middle_of(b->wide)), down = scale * ((float)i - middle_of(b->tall));
      const float w = b->weight[q], r = b->residual[set][q];
      const float v = image[p], x = image[area + p], y = image[2 * area + p], z = image[3 * area + p];
      const float wx = w * x, wy = w * y, wz = w * z, wv = w * v;
      xx += wx * x; xy += wx * y; xz += wx * z; xv += wx * v; yy += wy * y;
      yz += wy * z; yv += wy * v; zz += wz * z; zv += wz * v; vv += wv * v;
      cx += wx; cy += wy; cz += wz; cv += wv;
      ux += wx * across; uy += wy * across; uz += wz * across; uv += wv * across;
      dx += wx * down; dy += wy * down; dz += wz * down; dv += wv * down;
      rx += wx * r; ry += wy * r; rz += wz * r; rv += wv * r;
    }
    ADD_UP(s, 0, t, xx); ADD_UP(s, 1, t, xy); ADD_UP(s, 2, t, xz); ADD_UP(s, 3, t, xv);
    ADD_UP(s, 4, t, yy); ADD_UP(s, 5, t, yz); ADD_UP(s, 6, t, yv); ADD_UP(s, 7, t, zz);
    ADD_UP(s, 8, t, zv); ADD_UP(s, 9, t, vv);
    ADD_UP(s, 10, t, cx); ADD_UP(s, 11, t, cy); ADD_UP(s, 12, t, cz); ADD_UP(s, 13, t, cv);
    ADD_UP(s, 14, t, ux); ADD_UP(s, 15, t, uy); ADD_UP(s, 16, t, uz); ADD_UP(s, 17, t, uv);
    ADD_UP(s, 18, t, dx); ADD_UP(s, 19, t, dy); ADD_UP(s, 20, t, dz); ADD_UP(s, 21, t, dv);
    ADD_UP(s, 22, t, rx); ADD_UP(s, 23, t, ry); ADD_UP(s, 24, t, rz); ADD_UP(s, 25, t, rv);
  JOIN
  finish_sums(s, 26);
  EACH_THREAD(t)
    const double bright = s->theta[set][k][A];
    if (t < 4) {
      const double first = t == A ? 1.0 : bright;
      int term = t * 4 - t * (t - 1) / 2;
      for (int j = t; j < 4; ++j, ++term) F(s, o + j, o + t) = s->sums[term] * first * (j == A ? 1.0 : bright);
      for (int g = 0; g < GROUND; ++g) F(s, 4 * n + g, o + t) = s->sums[10 + 4 * g + t] * first;
      s->right[o + t] = s->sums[22 + t] * first;
    }
  JOIN
  TALLY(SINGLE, area * 64);
  TALLY(SCRATCH_BYTES, area * 24);
}

/* Weighed products of the derivatives of two particles whose rectangles overlap, m before k. */
HELPER void add_cross(Shared *s, const Block *b, int set, int k, int m)
{
  const int *const one = s->boxes[k], *const two = s->boxes[m];
  const int top = most(one[TOP], two[TOP]), tall = least(one[BOTTOM], two[BOTTOM]) - top;
  const int left = most(one[LEFT], two[LEFT]), wide = least(one[RIGHT], two[RIGHT]) - left;
  const int here = one[RIGHT] - one[LEFT], there = two[RIGHT] - two[LEFT];
  if (tall <= 0 || wide <= 0) return;
  EACH_THREAD(t)
    const float *const first = images_of(s, b, set, k), *const second = images_of(s, b, set, m);
    const int a = area_of(one), c = area_of(two);
    float found[4][4];
    for (int i = 0; i < 4; ++i)
      for (int j = 0; j < 4; ++j) found[i][j] = 0.0f;
    for (int p = t; p < tall * wide; p += THREADS) {
      const int i = p / wide + top, j = p % wide + left;
      const int at = (i - one[TOP]) * here + j - one[LEFT], to = (i - two[TOP]) * there + j - two[LEFT];
      const float w = b->weight[(i - b->top) * b->wide + j - b->left];
      const float v = second[to], x = second[c + to], y = second[2 * c + to], z = second[3 * c + to];
      for (int e = 0; e < 4; ++e) {
        const float own = w * first[e * a + at];
        found[e][0] += own * v;
        found[e][1] += own * x;
        found[e][2] += own * y;
        found[e][3] += own * z;
      }
    }
    for (int i = 0; i < 4; ++i)
      for (int j = 0; j < 4; ++j) ADD_UP(s, 4 * i + j, t, found[i][j]);
  JOIN
  finish_sums(s, 16);
  EACH_THREAD(t)
    if (t < 16) {
      /* images are in the order value, x, y, z; parameters x, y, z, brightness */
      const int i = t / 4, j = t % 4;
      double value = s->sums[4 * ((i + 1) % 4) + (j + 1) % 4];
      if (i != A) value *= s->theta[set][k][A];
      if (j != A) value *= s->theta[set][m][A];
      F(s, 4 * k + i, 4 * m + j) = value;
    }
  JOIN
  TALLY(SINGLE, tall * wide * 36);
  TALLY(SCRATCH_BYTES, tall * wide * 36);
}

/* Both sides of (4) for a set of images, whose residual was just filled: with the prior, depths held at the ends of the
   PSF model where they would leave it. */
HELPER void fill_equations(Shared *s, const Psf *psf, const Block *b, int set)
{
  const int n = b->n, size = 4 * n + GROUND;
  EACH_THREAD(t)
    for (int p = t; p < size * size; p += THREADS)
      if (p % size >= p / size) F(s, p % size, p / size) = 0.0;
    if (t < GROUND) s->right[4 * n + t] = s->sums[1 + t];
  JOIN
  EACH_THREAD(t)
    if (t < GROUND)
      for (int g = t; g < GROUND; ++g) F(s, 4 * n + g, 4 * n + t) = s->flat[t * GROUND + g];
  JOIN
  for (int k = 0; k < n; ++k) {
    add_own(s, b, set, k);
    for (int m = 0; m < k; ++m) add_cross(s, b, set, k, m);
  }
  EACH_THREAD(t)
    if (t < n) {
      const double *const theta = s->theta[set][t];
      const double push = s->right[4 * t + Z];
      F(s, 4 * t + A, 4 * t + A) += b->precision;
      s->right[4 * t + A] += b->precision * (b->brightness - theta[A]);
      s->held[t] = (theta[Z] <= psf->min_um && push < 0.0) || (theta[Z] >= psf->max_um && push > 0.0);
    }
  JOIN
  EACH_THREAD(t)
    if (t < size)
      for (int k = 0; k < n; ++k) {
        const int m = 4 * k + Z;
        if (!s->held[k]) continue;
        if (t < m) F(s, m, t) = 0.0;
        else if (t > m) F(s, t, m) = 0.0;
        else s->right[m] = 0.0;
      }
  JOIN
}

/* The second term of (3). */
SMALL_HELPER double surprise(const Shared *s, const Block *b, int set)
{
  double total = 0.0;
  for (int k = 0; k < b->n; ++k) {
    const double off = s->theta[set][k][A] - b->brightness;
    total += off * off;
  }
  return b->precision * total;
}

/* Products of the parts of the plane with one another. */
HELPER void fill_flat(Shared *s, const Block *b)
{
  EACH_THREAD(t)
    const float scale = scale_of(b);
    float w0 = 0.0f, w1 = 0.0f, w2 = 0.0f, w11 = 0.0f, w12 = 0.0f, w22 = 0.0f;
    for (int p = t; p < b->tall * b->wide; p += THREADS) {
      const float w = b->weight[p], u = scale * ((float)(p % b->wide) - middle_of(b->wide));
      const float v = scale * ((float)(p / b->wide) - middle_of(b->tall));
      w0 += w;
      w1 += w * u;
      w2 += w * v;
      w11 += w * u * u;
      w12 += w * u * v;
      w22 += w * v * v;
    }
    ADD_UP(s, 0, t, w0); ADD_UP(s, 1, t, w1); ADD_UP(s, 2, t, w2);
    ADD_UP(s, 3, t, w11); ADD_UP(s, 4, t, w12); ADD_UP(s, 5, t, w22);
  JOIN
  finish_sums(s, 6);
  EACH_THREAD(t)
    if (t == 0) {
      double *const flat = s->flat;
      flat[0] = s->sums[0];
      flat[1] = s->sums[1];
      flat[2] = s->sums[2];
      flat[4] = s->sums[3];
      flat[5] = s->sums[4];
      flat[8] = s->sums[5];
    }
  JOIN
  TALLY(SINGLE, b->tall * b->wide * 15);
  TALLY(SCRATCH_BYTES, b->tall * b->wide * 4);
}

/* The reduced chi-square where it is beyond what noise gives, else 1: what makes a small step larger. */
SMALL_HELPER double unlike(double chi, double count, int size)
{
  const double free = most_of(count - size, 1.0), reduced = chi / free;
  return reduced > 1.0 + CHANCE * sqrt(2.0 / free) ? reduced : 1.0;
}

/* The particles' own parts of (5), and the reduced chi-square and pixels of each rectangle; 0 where F is singular. */
HELPER int state_errors(Shared *s, const Block *b, int set, double *covariance, double *fit)
{
  const int n = b->n, size = 4 * n + GROUND;
  if (!decompose(s, size, 0.0)) return 0;
  EACH_THREAD(t)
    if (t < 4 * n) {
      double column[SIZE];
      for (int i = 0; i < size; ++i) {
        double left = i == t ? 1.0 : 0.0;
        for (int k = 0; k < i; ++k) left -= L(s, i, k) * column[k];
        column[i] = left / s->root[i];
      }
      for (int i = size - 1; i >= 4 * (t / 4); --i) {
        double left = column[i];
        for (int k = i + 1; k < size; ++k) left -= L(s, k, i) * column[k];
        column[i] = left / s->root[i];
      }
      for (int j = 0; j < 4; ++j) covariance[4 * t + j] = column[4 * (t / 4) + j];
    }
  JOIN
  TALLY(DOUBLE, 8 * n * size * size);
  for (int k = 0; k < n; ++k) {
    const int *const box = s->boxes[k];
    EACH_THREAD(t)
      const int wide = box[RIGHT] - box[LEFT];
      float chi = 0.0f;
      for (int p = t; p < area_of(box); p += THREADS) {
        const int q = (p / wide + box[TOP] - b->top) * b->wide + p % wide + box[LEFT] - b->left;
        chi += b->weight[q] * b->residual[set][q] * b->residual[set][q];
      }
      ADD_UP(s, 0, t, chi);
    JOIN
    finish_sums(s, 1);
    EACH_THREAD(t)
      if (t == 0) {
        fit[2 * k] = s->sums[0] / most(area_of(box) - 4 - GROUND, 1);
        fit[2 * k + 1] = area_of(box);
      }
    JOIN
    TALLY(SINGLE, area_of(box) * 3);
    TALLY(SCRATCH_BYTES, area_of(box) * 8);
  }
  return 1;
}

/* Fit the particles theta[0] of a block in place; returns how it ended. Images at the start are in the first set. Fills
   `covariance` (n, 4, 4) and `fit` (n, 2) unless it is singular; `steps` counts trials. */
HELPER int fit_block(Shared *s, const Psf *psf, const Block *b, double *covariance, double *fit, int *steps)
{
  const int n = b->n, size = 4 * n + GROUND;
  int now = 0, ended = NOT_CONVERGED;
  EACH_THREAD(t)
    if (t < GROUND) s->ground[0][t] = 0.0;
    if (t == 0) s->damping = FIRST_DAMPING;
  JOIN
  fill_residual(s, b, 0);
  EACH_THREAD(t)
    if (t == 0) {
      s->count = s->sums[5];
      s->ground[0][0] = s->sums[4] / most_of(s->count, 1.0);
    }
  JOIN
  fill_residual(s, b, 0);
  EACH_THREAD(t)
    if (t == 0) s->chi = s->sums[0] + surprise(s, b, 0);
  JOIN
  fill_equations(s, psf, b, 0);
  for (int step = 0; step < ITERATIONS; ++step) {
    const int next = 1 - now;
    if (!decompose(s, size, s->damping)) { ended = SINGULAR; break; }
    substitute(s, size);
    EACH_THREAD(t)
      if (t == 0) {
        double promised = 0.0, scale = 1.0;
        for (int i = 0; i < size; ++i) promised += s->step[i] * s->right[i];
        s->small = SMALL_GAIN * unlike(s->chi, s->count, size);
        s->goes_on = !(promised < s->small);
        for (int k = 0; k < n; ++k) {
          scale = most_of(scale, fabs(s->step[4 * k + X]) / LARGEST_STEP_PX);
          scale = most_of(scale, fabs(s->step[4 * k + Y]) / LARGEST_STEP_PX);
          scale = most_of(scale, fabs(s->step[4 * k + Z]) / LARGEST_STEP_UM);
        }
        s->scale = scale;
      }
    JOIN
    if (!s->goes_on) { ended = CONVERGED; break; }
    EACH_THREAD(t)
      if (t < 4 * n) {
        double found = s->theta[now][t / 4][t % 4] + s->step[t] / s->scale;
        if (t % 4 == Z) found = least_of(most_of(found, psf->min_um), psf->max_um);
        s->theta[next][t / 4][t % 4] = found;
      } else if (t < size) {
        s->ground[next][t - 4 * n] = s->ground[now][t - 4 * n] + s->step[t] / s->scale;
      }
    JOIN
    for (int k = 0; k < n; ++k)
      render(s, psf, s->theta[next][k], s->boxes[k], s->cells[k], 1, b->spare, images_of(s, b, next, k));
    fill_residual(s, b, next);
    *steps += 1;
    EACH_THREAD(t)
      if (t == 0) {
        const double found = s->sums[0] + surprise(s, b, next), change = found - s->chi;
        s->accepted = change < 0.0;
        if (s->accepted) {
          s->chi = found;
          s->damping = most_of(s->damping * LESS_DAMPING, LEAST_DAMPING);
        } else {
          s->damping = most_of(s->damping * MORE_DAMPING, LEAST_RAISED_DAMPING);
        }
        /* 1: goes on, 0: at rest, -1: gives up */
        s->goes_on = s->scale == 1.0 && fabs(change) < s->small ? 0 : 1;
        if (s->goes_on && change >= 0.0 && s->damping > MOST_DAMPING) s->goes_on = -1;
      }
    JOIN
    TALLY(STEPS, 1);
    if (s->accepted) {
      now = next;
      fill_equations(s, psf, b, now);
    }
    if (s->goes_on <= 0) {
      if (s->goes_on == 0) ended = CONVERGED;
      break;
    }
  }
  if (ended != SINGULAR && !state_errors(s, b, now, covariance, fit)) ended = SINGULAR;
  if (now) {
    EACH_THREAD(t)
      if (t < 4 * n) s->theta[0][t / 4][t % 4] = s->theta[1][t / 4][t % 4];
    JOIN
  }
  return ended;
}
