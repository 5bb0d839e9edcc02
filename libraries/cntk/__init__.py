"""Networks of the Cognitive Toolkit (CNTK 2): read in pure Python, written as ONNX. Needs only NumPy and onnx."""
