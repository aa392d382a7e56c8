"""Training images and their truth from a pipeline written for DeepTrack 2 (Midtvedt et al. 2021)."""
