"""Graph encoders: from a batch of graphs to one embedding for each node."""

from gnnrl_lightning.encoders.multi_stage import MotifConv, MotifEncoder, MultiStage
from gnnrl_lightning.encoders.plain import GAT, GCN

__all__ = ["GAT", "GCN", "MotifConv", "MotifEncoder", "MultiStage"]
