"""Networks, targets, losses, decoding and training: needs torch, numpy, scipy and scikit-image only."""
