"""The scores of trajectories in two lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from liveptv.track_scores import TrajectoryScores


def track_lines(scores: TrajectoryScores) -> str:
    """The scores for the terminal, with markup."""
    tracks, links = scores.tracks, scores.links
    return (
        f"{tracks.true_tracks} true trajectories, {tracks.found_tracks} found: alpha [bold]{tracks.alpha:.3f}[/], "
        f"beta [bold]{tracks.beta:.3f}[/], JSC {tracks.jsc:.3f}, JSC of trajectories {tracks.jsc_tracks:.3f}\n"
        f"{links.found_links} links: precision [bold]{links.precision:.4f}[/], recall [bold]{links.recall:.4f}[/], "
        f"{links.fragments:.2f} fragments per trajectory"
    )
