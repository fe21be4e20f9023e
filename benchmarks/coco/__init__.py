"""Search methods on the functions of COCO (Hansen et al., 2021)."""
