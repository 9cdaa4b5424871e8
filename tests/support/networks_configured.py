"""Networks whose modules read sizes from configurations, lists, dictionaries and objects that they hold."""

from collections import namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import nn

from tests.support.networks_zoo import IO, WRITTEN, case, conv


class Config:
    """A configuration as of transformers: some of its attributes have other names as well."""

    def __init__(self, **options):
        self.__dict__ |= options

    def __getattribute__(self, name):
        return super().__getattribute__("d_model" if name == "hidden_size" else name)


@dataclass(frozen=True)
class Widths:
    """A frozen configuration, nested in another one."""

    stem: int
    head: int


class Tokens(nn.Module):
    """A convolution that takes the number of its channels from what it holds."""

    def __init__(self, config, i, o):
        super().__init__()
        self.config, self.layer = config, conv(i, o)

    def width(self):
        raise NotImplementedError

    def forward(self, x):
        n, _, height, width = x.shape
        x = self.layer(x).view(n, self.width(), height * width)
        return x.tanh().view(n, self.width(), height, width)


class TokensOfConfig(Tokens):
    def width(self):
        return self.config.hidden_sizes[-1]


class TokensOfName(Tokens):
    def width(self):
        return self.config.hidden_size


class TokensOfDict(Tokens):
    def width(self):
        return self.config["widths"]["stem"]


class TokensOfTuple(Tokens):
    def width(self):
        return self.config[0]


class TokensOfDataclass(Tokens):
    def width(self):
        return self.config.widths.stem


class TokensOfClass(Tokens):
    channels = 6

    def width(self):
        return self.channels


SIZES = namedtuple("SIZES", ["stem", "head"])
FORMS = {
    "List": (TokensOfConfig, lambda: Config(hidden_sizes=[3, 6], num_heads=6)),
    "Name": (TokensOfName, lambda: Config(d_model=6, layers=2)),
    "Dict": (TokensOfDict, lambda: {"widths": {"stem": 6, "head": 6}}),
    "NamedTuple": (TokensOfTuple, lambda: SIZES(6, 6)),
    "Class": (TokensOfClass, lambda: None),
    "Dataclass": (TokensOfDataclass, lambda: SimpleNamespace(widths=Widths(6, 6))),
}


class TwoOfOneConfig(nn.Module):
    """Two layers share a configuration, and each keeps as many channels as it needs."""

    def __init__(self, form):
        super().__init__()
        tokens, config = form
        self.config = config()
        self.one, self.two = tokens(self.config, 3, 6), tokens(self.config, 6, 6)
        self.head = nn.Linear(6, 10)

    def forward(self, x):
        return self.head(self.two(self.one(x)).mean((2, 3)))


for name, form in FORMS.items():
    groups = {"one.layer": (6, 1), "two.layer": (6, 1)}
    case(groups, IO, zoo=WRITTEN)(type(f"ConfiguredBy{name}", (TwoOfOneConfig,), {
        "__init__": lambda self, form=form: TwoOfOneConfig.__init__(self, form),
    }))  # fmt: skip


class Attention(nn.Module):
    """Heads and widths of the configuration; a layer of two of them."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        width = config.num_heads * config.head_dim
        self.qkv, self.proj = nn.Linear(config.d_model, 3 * width), nn.Linear(width, config.d_model)

    def forward(self, x):
        n, tokens, _ = x.shape
        qkv = self.qkv(x).view(n, tokens, 3, self.config.num_heads, self.config.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = (q @ k.transpose(-2, -1) * self.config.head_dim**-0.5).softmax(-1) @ v
        return x + self.proj(mixed.transpose(1, 2).flatten(2))


@case(
    {"embed": (9, 1), "layers.0.qkv": (3, 1), "layers.1.qkv": (3, 1)}, {"x": 5, "head": 10}, ((2, 5, 7),), zoo=WRITTEN
)
class ConfiguredHeads(nn.Module):
    """Each layer keeps whole heads of its own."""

    def __init__(self):
        super().__init__()
        self.config = Config(d_model=9, num_heads=3, head_dim=4)
        self.embed, self.head = nn.Linear(7, 9), nn.Linear(9, 10)
        self.layers = nn.ModuleList(Attention(self.config) for _ in range(2))

    def forward(self, x):
        x = self.embed(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(x.reshape(len(x), -1, self.config.d_model).mean(1))


@case({"features": (8, 1), "side": (5, 1)}, IO, zoo=WRITTEN)
class ConfiguredParts(nn.Module):
    """Parts of the sizes that a dictionary of the network lists."""

    def __init__(self):
        super().__init__()
        self.sizes = {"parts": [8, 5]}
        self.features, self.side, self.both = conv(3, 8), conv(3, 5), nn.Conv2d(13, 13, 1, groups=13)
        self.head = nn.Linear(13, 10)

    def forward(self, x):
        x = self.both(torch.cat([self.features(x), self.side(x)], 1))
        a, b = x.split(self.sizes["parts"], 1)
        return self.head(torch.cat([a.tanh(), b.sigmoid()], 1).mean((2, 3)))
