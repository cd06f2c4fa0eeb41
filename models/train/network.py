"""ResNet-50 (v1.5 bottlenecks 3, 4, 6, 3) at a fraction of its width, and its form with batch norm folded."""
import torch
from torch import nn

BLOCKS = (3, 4, 6, 3)
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def unit(inputs, outputs, kernel, stride=1, relu=True):
    """Convolution, batch norm and, unless told otherwise, ReLU."""
    layers = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if relu else nn.Sequential(*layers)


class Bottleneck(nn.Module):
    def __init__(self, inputs, width, stride):
        super().__init__()
        outputs = 4 * width
        self.body = nn.Sequential(
            unit(inputs, width, 1), unit(width, width, 3, stride), unit(width, outputs, 1, relu=False)
        )
        self.shortcut = None
        if stride != 1 or inputs != outputs:
            self.shortcut = unit(inputs, outputs, 1, stride, relu=False)
        nn.init.zeros_(self.body[2][1].weight)

    def forward(self, x):
        other = x if self.shortcut is None else self.shortcut(x)
        return torch.relu(self.body(x) + other)


class Backbone(nn.Module):
    """forward gives the maps of layer1 to layer4: strides 4, 8, 16, 32; channels 4, 8, 16, 32 times `width`."""

    def __init__(self, width=16, stem=32):
        super().__init__()
        self.width = width
        self.stem = unit(3, stem, 7, 2)
        self.pool = nn.MaxPool2d(3, 2, 1)
        inputs = stem
        for index, count in enumerate(BLOCKS):
            blocks = []
            for number in range(count):
                stride = 2 if number == 0 and index > 0 else 1
                blocks.append(Bottleneck(inputs, width << index, stride))
                inputs = 4 * (width << index)
            setattr(self, f"layer{index + 1}", nn.Sequential(*blocks))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x):
        x = self.layer1(self.pool(self.stem(x)))
        maps = [x]
        for layer in (self.layer2, self.layer3, self.layer4):
            maps.append(layer(maps[-1]))
        return maps


def channels(width):
    """Channels of layer1 to layer4."""
    return [4 * (width << index) for index in range(4)]


def fold(backbone):
    """Batch norm folded into the convolutions, in place; for inference only."""
    backbone.eval()
    for module in backbone.modules():
        if isinstance(module, nn.Sequential) and len(module) >= 2 and isinstance(module[1], nn.BatchNorm2d):
            module[0] = nn.utils.fuse_conv_bn_eval(module[0], module[1])
            module[1] = nn.Identity()
    return backbone
