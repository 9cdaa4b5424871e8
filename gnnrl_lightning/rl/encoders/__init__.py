"""Graph encoders: from a batch of graphs to one embedding for each node."""

from gnnrl_lightning.rl.encoders.multi_stage import MotifConv, MotifEncoder, MultiStage
from gnnrl_lightning.rl.encoders.plain import GAT, GCN

__all__ = ["GAT", "GCN", "MotifConv", "MotifEncoder", "MultiStage"]
