"""Objects with an image model found by matched filters, without a network, and measured by the fit."""
