"""Narrow ResNets with seeded weights, their batch norm measured on drawn pictures. Needs torch, torchvision, timm."""
import torch
from torch import nn
from torchvision.models import resnet as tv

from pictures import prepared


class Narrow(tv.ResNet):
    """torchvision's ResNet with `width` channels where it has 64."""

    def __init__(self, block, layers, width, base_width=64):
        nn.Module.__init__(self)
        self._norm_layer = nn.BatchNorm2d
        self.inplanes, self.dilation, self.groups, self.base_width = width, 1, 1, base_width
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        for i, n in enumerate(layers):
            layer = self._make_layer(block, width << i, n, stride=1 if i == 0 else 2)
            setattr(self, f"layer{i + 1}", layer)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear((width << 3) * block.expansion, 10)


class GluonBottleneck(tv.Bottleneck):
    """Gluon's version 1: the stride in the first 1 x 1, whose like have a bias."""

    def __init__(self, inplanes, planes, stride=1, *args, **kwargs):
        super().__init__(inplanes, planes, stride, *args, **kwargs)
        self.conv1 = nn.Conv2d(inplanes, planes, 1, stride)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.conv3 = nn.Conv2d(planes, planes * 4, 1)


def build(kind, width):
    torch.manual_seed(50)
    if kind.startswith("timm"):
        import timm.models.resnet as timm

        channels = tuple(width << i for i in range(4))
        deep = {"stem_width": width // 2, "stem_type": "deep", "avg_down": True} if kind == "timm-resnet50d" else {}
        stem = {"stem_width": width} | deep
        net = timm.ResNet(timm.Bottleneck, (3, 4, 6, 3), num_classes=10, channels=channels, **stem)
        if kind == "timm-resnet50d":
            assert isinstance(net.conv1, nn.Sequential)
    else:
        block, layers, base = {
            "gluon-resnet50": (GluonBottleneck, (3, 4, 6, 3), 64),
            "torchvision-resnet50": (tv.Bottleneck, (3, 4, 6, 3), 64),
            "torchvision-resnet18": (tv.BasicBlock, (2, 2, 2, 2), 64),
            "torchvision-resnet34": (tv.BasicBlock, (3, 4, 6, 3), 64),
            "torchvision-resnet101": (tv.Bottleneck, (3, 4, 23, 3), 64),
            "torchvision-wide_resnet50_2": (tv.Bottleneck, (3, 4, 6, 3), 128),
        }[kind]
        net = Narrow(block, layers, width, base)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.1)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            module.momentum = None
    net.train()
    with torch.no_grad():
        net(torch.cat([torch.from_numpy(prepared(seed)) for seed in range(100, 132)]))
        for tensor in net.state_dict().values():
            if tensor.dtype == torch.float32:
                # Eight bits of mantissa: small once compressed.
                tensor.copy_(tensor.bfloat16().float())
    return net.eval()
