"""From RGB arrays to feature grids: frozen timm backbones and what resamples their stages."""
