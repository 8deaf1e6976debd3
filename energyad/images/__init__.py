"""From files to RGB arrays: decoding, reading, finding, augmentation, tiling, prefetching."""
