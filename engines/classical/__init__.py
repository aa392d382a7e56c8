"""Classical detector, which needs no training: spot-enhancing filter, sub-pixel fit, depth from the two widths."""
