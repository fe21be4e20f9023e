"""What node space does to quantised weights, scans and batch normalisation."""
