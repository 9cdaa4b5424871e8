"""Networks of tables as repositories write them, each with its channel groups derived by hand."""

import torch
from torch import nn
from torch.nn import functional as F

from tests.support.networks_zoo import WRITTEN, case


@case({"emb_l.0": (4, 1), "bot_l.0": (8, 1), "top_l.0": (7, 1)}, {"top_l.2": 1}, ((2, 6),), zoo=WRITTEN)
class DeepRecommendation(nn.Module):
    """DLRM: all pairs of embeddings and of features are compared, so that all of them share their channels."""

    def __init__(self):
        super().__init__()
        self.emb_l = nn.ModuleList(nn.EmbeddingBag(5, 4, mode="sum") for _ in range(3))
        self.bot_l = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4), nn.ReLU())
        self.top_l = nn.Sequential(nn.Linear(4 + 6, 7), nn.ReLU(), nn.Linear(7, 1), nn.Sigmoid())

    def interact_features(self, x, ly):
        (batch_size, d) = x.shape
        T = torch.cat([x, *ly], dim=1).view((batch_size, -1, d))
        Z = torch.bmm(T, torch.transpose(T, 1, 2))
        _, ni, nj = Z.shape
        li = torch.tensor([i for i in range(ni) for j in range(i)])
        lj = torch.tensor([j for i in range(nj) for j in range(i)])
        Zflat = Z[:, li, lj]
        return torch.cat([x, Zflat], dim=1)

    def forward(self, x):
        sparse = (x[:, :3] > 0).long()
        ly = [table(sparse[:, i : i + 1]) for i, table in enumerate(self.emb_l)]
        return self.top_l(self.interact_features(self.bot_l(x), ly))


@case({"table": (4, 1), "inner": (6, 1)}, {"weights": 3, "head": 2}, ((2, 6),), {"weights": "weighs rows"}, WRITTEN)
class WeighedTable(nn.Module):
    """A layer makes a weight for each row that is looked up: there are as many as indices."""

    def __init__(self):
        super().__init__()
        self.weights, self.table = nn.Linear(6, 3), nn.EmbeddingBag(5, 4, mode="sum")
        self.inner, self.head = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x):
        rows = self.table((x[:, :3] > 0).long(), per_sample_weights=self.weights(x))
        return self.head(self.inner(rows).relu())


class KANLinear(nn.Module):
    """A spline for each pair of inputs and outputs, with a grid for each input."""

    def __init__(self, in_features, out_features, grid_size=3, spline_order=2):
        super().__init__()
        self.in_features, self.out_features, self.spline_order = in_features, out_features, spline_order
        grid = torch.arange(-spline_order, grid_size + spline_order + 1) * 2 / grid_size - 1
        self.register_buffer("grid", grid.expand(in_features, -1).contiguous())
        self.base_weight = nn.Parameter(torch.randn(out_features, in_features))
        self.spline_weight = nn.Parameter(torch.randn(out_features, in_features, grid_size + spline_order))
        self.spline_scaler = nn.Parameter(torch.randn(out_features, in_features))

    def b_splines(self, x):
        assert x.dim() == 2 and x.size(1) == self.in_features
        grid = self.grid
        x = x.unsqueeze(-1)
        bases = ((x >= grid[:, :-1]) & (x < grid[:, 1:])).to(x.dtype)
        for k in range(1, self.spline_order + 1):
            bases = ((x - grid[:, : -(k + 1)]) / (grid[:, k:-1] - grid[:, : -(k + 1)]) * bases[:, :, :-1]) + (
                (grid[:, k + 1 :] - x) / (grid[:, k + 1 :] - grid[:, 1:(-k)]) * bases[:, :, 1:]
            )
        return bases.contiguous()

    def forward(self, x):
        assert x.size(-1) == self.in_features
        original_shape = x.shape
        x = x.reshape(-1, self.in_features)
        base_output = F.linear(F.silu(x), self.base_weight)
        spline_weight = self.spline_weight * self.spline_scaler.unsqueeze(-1)
        spline_output = F.linear(self.b_splines(x).view(x.size(0), -1), spline_weight.view(self.out_features, -1))
        output = base_output + spline_output
        return output.reshape(*original_shape[:-1], self.out_features)


@case({"layers.0": (6, 1), "layers.1": (5, 1)}, {"layers.2": 3}, ((2, 4),), zoo=WRITTEN)
class KolmogorovArnold(nn.Module):
    """A channel goes with all of its splines."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([KANLinear(4, 6), KANLinear(6, 5), KANLinear(5, 3)])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


@case({"emb": (6, 1), "convs.0": (5, 1), "convs.1": (3, 1)}, {"x": 4, "fc": 1}, ((2, 4, 3),), zoo=WRITTEN)
class CompressedInteractions(nn.Module):
    """xDeepFM: each field of the input, which stays, multiplies each channel of the layer before."""

    def __init__(self):
        super().__init__()
        self.emb, self.convs, self.fc = nn.Linear(3, 6), nn.ModuleList(), nn.Linear(8, 1)
        for before, after in ((4, 5), (5, 3)):
            self.convs.append(nn.Conv1d(4 * before, after, 1))

    def forward(self, x):
        x = self.emb(x)
        xs = []
        x0, h = x.unsqueeze(2), x
        for layer in self.convs:
            x = x0 * h.unsqueeze(1)
            batch_size, f0_dim, fin_dim, embed_dim = x.shape
            x = x.view(batch_size, f0_dim * fin_dim, embed_dim)
            x = F.relu(layer(x))
            h = x
            xs.append(x)
        return self.fc(torch.sum(torch.cat(xs, dim=1), 2))


class NumericalFeatureTokenizer(nn.Module):
    """A token for each feature, which is the feature times its row of a table, and a bias."""

    def __init__(self, n_features, d_token):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_features, d_token))
        self.bias = nn.Parameter(torch.randn(n_features, d_token))

    def forward(self, x):
        return self.weight[None] * x[..., None] + self.bias[None]


class EinsumTokenizer(NumericalFeatureTokenizer):
    """The same tokens by an Einstein sum."""

    def forward(self, x):
        return torch.einsum("bf,fd->bfd", x, self.weight) + self.bias


@case({"tokenizer": (8, 1), "linear0": (6, 1)}, {"head": 3}, ((2, 4),), zoo=WRITTEN)
class FeatureTokens(nn.Module):
    """FT-Transformer without attention: the table's columns are the channels of the residual stream."""

    def __init__(self, tokenizer=NumericalFeatureTokenizer):
        super().__init__()
        self.tokenizer, self.cls = tokenizer(4, 8), nn.Parameter(torch.randn(8))
        self.normalization, self.linear0, self.linear1 = nn.LayerNorm(8), nn.Linear(8, 6), nn.Linear(6, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.tokenizer(x)
        x = torch.cat([x, self.cls.expand(len(x), 1, -1)], dim=1)
        x = x + self.linear1(F.relu(self.linear0(self.normalization(x))))
        return self.head(x[:, -1] + x.mean(1))


@case({"tokenizer": (8, 1), "linear0": (6, 1)}, {"head": 3}, ((2, 4),), zoo=WRITTEN)
class FeatureTokensByEinsum(FeatureTokens):
    def __init__(self):
        super().__init__(EinsumTokenizer)


@case({"embed": (8, 1)}, {"head": 10}, ((2, 9),), zoo=WRITTEN)
class CrossNetwork(nn.Module):
    """Vectors weigh the features, and each product scales the first ones; DCN."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(9, 8), nn.Linear(8, 10)
        self.kernels = nn.ParameterList(torch.rand(8) for _ in range(2))
        self.biases = nn.ParameterList(torch.rand(8) for _ in range(2))

    def forward(self, x):
        first = x = self.embed(x)
        for kernel, bias in zip(self.kernels, self.biases, strict=True):
            x = first * (x @ kernel).unsqueeze(-1) + bias + x
        return self.head(x)


@case({"embed": (8, 1), "gate": (6, 1)}, {"x": 5, "head": 10}, ((2, 5, 9),), zoo=WRITTEN)
class VectorsOnBothSides(nn.Module):
    """A vector weighs the tokens, and one the channels of a gate; the gate multiplies by a single number."""

    def __init__(self):
        super().__init__()
        self.embed, self.gate, self.head = nn.Linear(9, 8), nn.Linear(8, 6), nn.Linear(8, 10)
        self.tokens, self.channels = nn.Parameter(torch.rand(5)), nn.Parameter(torch.rand(6))

    def forward(self, x):
        x = self.embed(x).tanh()
        gate = self.channels @ self.gate(x).transpose(1, 2)
        return self.head((self.tokens @ x) * gate.mean(1, keepdim=True))


@case({"a": (6, 1), "b": (5, 1)}, {"head": 10}, ((2, 9),), zoo=WRITTEN)
class NamesOfConcatenations(nn.Module):
    """Operators that are all a concatenation."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(9, 6), nn.Linear(9, 5), nn.Linear(22, 10)

    def forward(self, x):
        a, b = self.a(x).tanh(), self.b(x).tanh()
        both = torch.hstack([torch.concat([a, b], 1), torch.concatenate([b, a], dim=-1)])
        return self.head(torch.vstack([both, both.relu()]))
