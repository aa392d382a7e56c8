"""What changes over the field of view, from the aligned traces of a scan; and how well left-out beads are
measured."""
