"""Networks as programs: exported by PyTorch, and as ONNX."""
