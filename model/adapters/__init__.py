"""Networks of other packages as segmenters: Cellpose, StarDist, InstanSeg and models of the BioImage Model Zoo."""
