"""The program of a network: what `torch.export` captures of it, on copies without memory."""
