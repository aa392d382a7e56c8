"""What only runs with volumes have: their projections, their account, their facts."""
