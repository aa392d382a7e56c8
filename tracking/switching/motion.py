"""Three models of motion for each track, interacting (IMM), each axis by itself.

Bar-Shalom, Li & Kirubarajan, Estimation with Applications to Tracking and Navigation (2001), 11.6. A particle is

    B  Brownian: p takes steps of variance q_b dt and has no velocity
    D  directed: p = p + v dt, with steps of variance q_d dt; v changes slowly
    N  newly directed: as D, but the velocity is only known to be one of those that directed particles have here

B becomes N, D and N become B, D turns (becomes N), and N becomes D, each with a rate. A prediction is a mixture of
three Gaussians; N gives it the tails that a switch needs. Moments of mixed models are matched; a velocity that was
just measured (N) is mixed only with one that was known (D), never with "none".

All tracks are columns of `state` (STATES, capacity). Rows: for each model p, v, pp, pv, vv of three axes (15), then
the probabilities of the models, the probability that the particle is still there, the time of the state in s, the
mean brightness; which parts of the predicted models had been which model before (`FROM_B` to `D_FROM_N`); and what
the last step says that is learnt from when the next one is known (`PAST_FROM_B` to `APART`); and how far (um) the
track was in the last frame from the one that it shared a detection with, 0 where it did not. `label` is that of
`tracking.kalman`, and behind it the number of misses, whether the track is confirmed, its detection in the last
frame (-1 none), and whether that is the row of another track, with which it shares it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from numba import njit

from tracking.flow_field import expect

B, D, N = 0, 1, 2
MODELS = 3
P, V, PP, PV, VV = 0, 3, 6, 9, 12
ROWS = 15
MU = MODELS * ROWS
EXISTS, TIME, BRIGHTNESS = MU + 3, MU + 4, MU + 5
FROM_B, STAYED_B, B_FROM_N, N_FROM_N, D_FROM_N = MU + 6, MU + 7, MU + 8, MU + 9, MU + 10
PAST_FROM_B, PAST_STAYED_B, PAST_KIND, PAST_STEPS = MU + 11, MU + 12, MU + 13, MU + 14
APART = PAST_STEPS + 6
STATES = APART + 3
ID, FIRST, SEEN, HITS, MISSED, CONFIRMED, LINK, SHARES = 0, 1, 2, 3, 4, 5, 6, 7
LABELS = 8

WANDER = 0.0025
"""Variance of the change of a directed velocity in a frame, of that of the velocities: 5 % of the speed each frame.
Less loses particles on curved paths, more makes predictions across gaps wider."""
TURNING = 0.5
"""A prediction that is less than so many of its standard deviations inside the stack may have turned back there.
Who turns all the same is beyond the end in the next prediction. More takes wide predictions for slow ones."""
LEAST_MU = 1e-4  # probability of a model: none is ever excluded
TWO_PI_CUBED = (2.0 * math.pi) ** 3


class Motion(NamedTuple):
    """What is learnt of all particles.

    `q` (2, 3), um^2/s: the steps of B and of D. `rates` (3,), a frame: B to N, D and N to B, D to N. `unknown`
    (3,), um^2/s^2: variance of a velocity where nothing is known of the flow; `error` (3,): of those it was learnt
    from. `ends` (2,), um: the heights between which particles are seen.
    """

    q: Any
    rates: Any
    unknown: Any
    error: Any
    ends: Any
    frame_s: float


@njit(cache=True, nogil=True, error_model="numpy")
def predict_one(state: Any, i: int, axes: int, dt: float, motion: Any, flow: Any, work: Any) -> None:
    """Mix the models of track `i` and predict each `dt` (s) ahead; the probabilities become the predicted ones.

    `motion` and `flow` are `Motion` and `Flow`; `work` (4, 3) is scratch.
    """
    frames = dt / motion.frame_s
    start = 1.0 - (1.0 - motion.rates[0]) ** frames
    stop = 1.0 - (1.0 - motion.rates[1]) ** frames
    turn = min(1.0 - (1.0 - motion.rates[2]) ** frames, 0.9 * (1.0 - stop))
    b, d, n = state[MU + B, i], state[MU + D, i], state[MU + N, i]
    place, place_variance, velocity, variance = work[0], work[1], work[2], work[3]
    wb, wd, wn = b * (1.0 - start), d * stop, n * stop
    nb, nd, nn = b * start, d * turn, n * turn
    cb = max(wb + wd + wn, LEAST_MU)
    cd = max((d + n) * (1.0 - stop - turn), LEAST_MU)
    cn = max(nb + nd + nn, LEAST_MU)
    both = d + n
    to_b, to_n = wb + wd + wn, nb + nd + nn
    for a in range(axes):
        pb, pd, pn = state[P + a, i], state[ROWS + P + a, i], state[2 * ROWS + P + a, i]
        vb, vd, vn = state[PP + a, i], state[ROWS + PP + a, i], state[2 * ROWS + PP + a, i]
        # into B
        if to_b > 0.0:
            mean_b = (wb * pb + wd * pd + wn * pn) / to_b
            var_b = (
                wb * (vb + (pb - mean_b) ** 2)
                + wd * (vd + (pd - mean_b) ** 2)
                + wn * (vn + (pn - mean_b) ** 2)
            ) / to_b
        else:
            mean_b, var_b = pb, vb
        # into N: the position only
        if to_n > 0.0:
            mean_n = (nb * pb + nd * pd + nn * pn) / to_n
            var_n = (
                nb * (vb + (pb - mean_n) ** 2)
                + nd * (vd + (pd - mean_n) ** 2)
                + nn * (vn + (pn - mean_n) ** 2)
            ) / to_n
        else:
            mean_n, var_n = pb, vb
        # into D: position and velocity of D and N
        f = d / both if both > 0.0 else 0.5
        g = 1.0 - f
        ud, un = state[ROWS + V + a, i], state[2 * ROWS + V + a, i]
        dp, dv = pd - pn, ud - un
        mean_p, mean_v = f * pd + g * pn, f * ud + g * un
        pp = f * vd + g * vn + f * g * dp * dp
        pv = f * state[ROWS + PV + a, i] + g * state[2 * ROWS + PV + a, i] + f * g * dp * dv
        vv = f * state[ROWS + VV + a, i] + g * state[2 * ROWS + VV + a, i] + f * g * dv * dv
        place[a], place_variance[a] = mean_n, var_n
        state[P + a, i] = mean_b
        state[PP + a, i] = var_b + motion.q[0, a] * dt
        state[ROWS + P + a, i] = mean_p + mean_v * dt
        state[ROWS + V + a, i] = mean_v
        state[ROWS + PP + a, i] = pp + dt * (2.0 * pv + dt * vv) + motion.q[1, a] * dt
        state[ROWS + PV + a, i] = pv + dt * vv
        state[ROWS + VV + a, i] = vv
        state[2 * ROWS + P + a, i] = mean_n
        state[2 * ROWS + PP + a, i] = var_n + motion.q[1, a] * dt
    for a in range(axes, 3):
        place[a], place_variance[a] = 0.0, 0.0
    if not expect(flow, place, place_variance, velocity, variance):
        for a in range(3):
            velocity[a], variance[a] = 0.0, motion.unknown[a]
    own = 0.0
    for a in range(axes):
        own += (state[ROWS + V + a, i] ** 2 + state[ROWS + VV + a, i]) / axes
    # what a filter thinks of velocities scatters less than they do: its error is the rest (E[v^2] = v^2 + vv)
    for a in range(axes):
        vv = min(variance[a] + motion.error[a], motion.unknown[a])
        state[ROWS + VV + a, i] += WANDER * min(vv, own) * frames
        state[2 * ROWS + P + a, i] += velocity[a] * dt
        state[2 * ROWS + V + a, i] = velocity[a]
        state[2 * ROWS + PP + a, i] += dt * dt * vv
        state[2 * ROWS + PV + a, i] = dt * vv
        state[2 * ROWS + VV + a, i] = vv
    state[PAST_FROM_B, i], state[PAST_STAYED_B, i] = state[FROM_B, i], state[STAYED_B, i]
    if axes == 3:
        _turn_back(state, i, min(state[P + 2, i], motion.ends[0]), -1.0)
        _turn_back(state, i, max(state[P + 2, i], motion.ends[1]), 1.0)
    state[FROM_B, i] = nb / to_n if to_n > 0.0 else 0.5
    state[STAYED_B, i] = wb / to_b if to_b > 0.0 else 0.5
    state[B_FROM_N, i] = wn / to_b if to_b > 0.0 else 0.0
    state[N_FROM_N, i] = nn / to_n if to_n > 0.0 else 0.0
    state[D_FROM_N, i] = n / both if both > 0.0 else 0.0
    total = cb + cd + cn
    state[MU + B, i], state[MU + D, i], state[MU + N, i] = cb / total, cd / total, cn / total


@njit(cache=True, nogil=True, error_model="numpy")
def _turn_back(state: Any, i: int, end: float, sign: float) -> None:
    """Reflect the directed prediction of track `i` at the height `end`, beyond which (`sign`) none is seen.

    Who leaves there is not seen again, whatever is predicted: who is seen has turned. Where the prediction lies on
    either side, it is the mixture of both, by its moments.
    """
    at = ROWS + 2
    beyond = sign * (state[at + P, i] - end)
    spread = math.sqrt(state[at + PP, i])
    if beyond < -TURNING * spread:
        return
    part = 0.5 * (1.0 + math.erf(beyond / (spread * math.sqrt(2.0))))
    both = 4.0 * part * (1.0 - part)
    off, v = state[at + P, i] - end, state[at + V, i]
    state[at + P, i] -= 2.0 * part * off
    state[at + V, i] = (1.0 - 2.0 * part) * v
    state[at + PP, i] += both * off * off
    state[at + PV, i] += both * off * v
    state[at + VV, i] += both * v * v


@njit(cache=True, nogil=True, error_model="numpy")
def shift_one(state: Any, i: int, axes: int, dt: float, motion: Any) -> None:
    """Move the prediction of track `i` by a little time `dt`, s, which may be negative, without mixing."""
    for m in range(MODELS):
        at = m * ROWS
        q = motion.q[0 if m == B else 1]
        for a in range(axes):
            pv, vv = state[at + PV + a, i], state[at + VV + a, i]
            if m != B:
                state[at + P + a, i] += state[at + V + a, i] * dt
                state[at + PV + a, i] = pv + dt * vv
                state[at + PP + a, i] += dt * (2.0 * pv + dt * vv)
            state[at + PP + a, i] = max(state[at + PP + a, i] + q[a] * dt, 1e-12)


@njit(cache=True, nogil=True, error_model="numpy")
def log_likelihood(state: Any, i: int, m: int, axes: int, z: Any, variances: Any, j: int, dt: float) -> float:
    """ln of the density of detection `j`, taken `dt` (s) after the prediction of track `i`, in model `m`."""
    at = m * ROWS
    total = 0.0
    det = 1.0
    for a in range(axes):
        S = state[at + PP + a, i] + variances[a, j]
        nu = z[a, j] - state[at + P + a, i]
        if m != B:
            nu -= state[at + V + a, i] * dt
        total += nu * nu / S
        det *= 2.0 * math.pi * S
    return -0.5 * (total + math.log(det))


@njit(cache=True, nogil=True, error_model="numpy")
def correct_one(state: Any, i: int, axes: int, z: Any, variances: Any, j: int, logs: Any) -> float:
    """Update track `i` by detection `j`; returns ln of the likelihood. `logs` (3,) is scratch."""
    best = -1e300
    for m in range(MODELS):
        logs[m] = math.log(state[MU + m, i]) + log_likelihood(state, i, m, axes, z, variances, j, 0.0)
        best = max(best, logs[m])
    total = 0.0
    for m in range(MODELS):
        logs[m] = math.exp(logs[m] - best)
        total += logs[m]
    least = 0.0
    for m in range(MODELS):
        share = max(logs[m] / total, LEAST_MU)
        state[MU + m, i] = share
        least += share
        at = m * ROWS
        for a in range(axes):
            pp, pv = state[at + PP + a, i], state[at + PV + a, i]
            S = pp + variances[a, j]
            nu = z[a, j] - state[at + P + a, i]
            state[at + P + a, i] += pp / S * nu
            state[at + PP + a, i] = pp * variances[a, j] / S
            if m != B:
                state[at + V + a, i] += pv / S * nu
                state[at + PV + a, i] = pv * variances[a, j] / S
                state[at + VV + a, i] = max(state[at + VV + a, i] - pv * pv / S, 0.0)
    for m in range(MODELS):
        state[MU + m, i] /= least
    return best + math.log(total)


@njit(cache=True, nogil=True, error_model="numpy")
def bear_one(
    state: Any, i: int, axes: int, z: Any, variances: Any, j: int, directed: float, exists: float, motion: Any,
    flow: Any, work: Any,
) -> None:  # fmt: skip
    """Start track `i` at detection `j`, with a velocity as the flow has it there; `directed` and `exists` are
    probabilities."""
    for row in range(STATES):
        state[row, i] = 0.0
    for m in range(MODELS):
        for a in range(axes):
            state[m * ROWS + P + a, i] = z[a, j]
            state[m * ROWS + PP + a, i] = variances[a, j]
    place, place_variance, velocity, variance = work[0], work[1], work[2], work[3]
    for a in range(3):
        place[a] = z[a, j] if a < axes else 0.0
        place_variance[a] = variances[a, j] if a < axes else 0.0
    known = expect(flow, place, place_variance, velocity, variance)
    for m in range(D, MODELS):
        for a in range(axes):
            vv = motion.unknown[a]
            if known:
                vv = min(vv, variance[a] + motion.error[a])
            state[m * ROWS + V + a, i] = velocity[a] if known else 0.0
            state[m * ROWS + VV + a, i] = vv
    state[MU + B, i], state[MU + D, i], state[MU + N, i] = 1.0 - directed, 0.0, directed
    state[EXISTS, i] = exists


@njit(cache=True, nogil=True, error_model="numpy")
def mean_of(state: Any, i: int, a: int, row: int) -> float:
    """Mean over the models of position (`row` P) or velocity (V) of track `i` in axis `a`."""
    total = 0.0
    for m in range(MODELS):
        total += state[MU + m, i] * state[m * ROWS + row + a, i]
    return float(total)


@njit(cache=True, nogil=True, error_model="numpy")
def variance_of(state: Any, i: int, a: int, row: int, spread: int, of_brownian: float) -> float:
    """Variance of the same: `spread` is PP or VV; `of_brownian` is added to that of the Brownian model."""
    mean = mean_of(state, i, a, row)
    total = 0.0
    for m in range(MODELS):
        off = state[m * ROWS + row + a, i] - mean
        total += state[MU + m, i] * (state[m * ROWS + spread + a, i] + off * off)
    return float(total + state[MU + B, i] * of_brownian)
