"""Networks that are graphs in files, CNTK's (.model) or ONNX (.onnx), used unchanged."""
