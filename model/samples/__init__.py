"""What training learns from: samples, crops and how they are varied."""
