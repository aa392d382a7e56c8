"""The scatter of tracks that a fit of many parameters follows closely."""

import numpy as np

from tracking.physics.channel.sandwich import parts_of_covariance

TRACKS, PARAMETERS = 60, 45


def test_the_scatter_of_pieces_of_tracks_is_as_large_as_their_errors_however_many_parameters_there_are():
    rng = np.random.default_rng(0)
    track = np.repeat(np.arange(TRACKS), rng.integers(1, 5, TRACKS))
    jacobian = rng.normal(size=(3, track.size, PARAMETERS))
    jacobian[..., :5] *= (track < 6)[:, None]  # some of the parameters only few tracks tell
    sigma = rng.uniform(0.5, 2.0, (3, track.size))
    weight = 1.0 / sigma**2
    both = ((0, 1), (0, 1))
    weighted = jacobian * weight[..., None]
    curvature = np.tensordot(weighted, jacobian, both)
    found = []
    for _ in range(150):
        error = sigma * rng.normal(size=sigma.shape)
        residual = error - jacobian @ np.linalg.solve(curvature, np.tensordot(weighted, error, both))
        firm, scatter = parts_of_covariance(
            jacobian, weight, residual, np.zeros(PARAMETERS), np.ones(track.size), track
        )
        assert np.allclose(firm, curvature)
        found.append(np.linalg.solve(curvature, scatter))
    share = np.diag(np.mean(found, axis=0))
    assert abs(share[:5].mean() - 1.0) < 0.1
    assert abs(share[5:].mean() - 1.0) < 0.03


def test_pieces_of_a_track_that_err_together_count_as_one():
    rng = np.random.default_rng(1)
    track = np.repeat(np.arange(300), 4)
    error = np.repeat(rng.normal(size=(1, 300)), 4, axis=1)
    one = np.ones((1, track.size, 1))
    _, together = parts_of_covariance(
        one, np.ones_like(error), error, np.zeros(1), np.ones(track.size), track
    )
    _, alone = parts_of_covariance(one, np.ones_like(error), error, np.zeros(1), np.ones(track.size))
    assert 3.5 < float(together[0, 0] / alone[0, 0]) < 4.5
