"""Networks that come as a graph in a file, CNTK's (.model) or ONNX (.onnx), put to use as they are."""
