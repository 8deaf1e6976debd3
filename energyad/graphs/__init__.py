"""From the scorer to ONNX graphs: export, layout, quantisation, and a cache of traced backbones."""
