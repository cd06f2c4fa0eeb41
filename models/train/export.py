"""Checkpoint to float ONNX: averaged weights, batch norm folded, opset 13, input [1, 3, S, S], output `features`.

    python export.py DIR/last.pt backbone.onnx
"""
import argparse

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from network import Backbone, channels, fold


class Graph:
    """Nodes and weights in order; every method adds one node and gives its output's name."""

    def __init__(self):
        self.nodes, self.weights = [], []

    def add(self, kind, name, inputs, **attributes):
        self.nodes.append(helper.make_node(kind, inputs, [f"{name}_output"], name=name, **attributes))
        return f"{name}_output"

    def conv(self, name, x, unit):
        conv = unit[0]
        for part, value in (("weight", conv.weight), ("bias", conv.bias)):
            array = np.ascontiguousarray(value.detach().float().numpy())
            self.weights.append(numpy_helper.from_array(array, f"{name}.{part}"))
        pad = conv.padding[0]
        return self.add("Conv", name, [x, f"{name}.weight", f"{name}.bias"], kernel_shape=list(conv.kernel_size),
                        strides=list(conv.stride), pads=[pad] * 4, dilations=[1, 1], group=1)

    def relu(self, name, x):
        return self.add("Relu", name, [x])

    def bottleneck(self, name, x, block):
        y = x
        for index in range(3):
            y = self.conv(f"{name}.conv{index + 1}", y, block.body[index])
            if index < 2:
                y = self.relu(f"{name}.relu{index + 1}", y)
        if block.shortcut is not None:
            x = self.conv(f"{name}.downsample", x, block.shortcut)
        return self.relu(f"{name}.relu3", self.add("Add", f"{name}.add", [y, x]))


def to_onnx(backbone, side, views=None):
    fold(backbone)
    graph = Graph()
    x = graph.relu("relu", graph.conv("conv1", "input", backbone.stem))
    x = graph.add("MaxPool", "maxpool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for layer in range(1, 5):
        for index, block in enumerate(getattr(backbone, f"layer{layer}")):
            x = graph.bottleneck(f"layer{layer}.{index}", x, block)
    x = graph.add("GlobalAveragePool", "avgpool", [x])
    graph.nodes.append(helper.make_node("Flatten", [x], ["features"], name="flatten", axis=1))
    count = channels(backbone.width)[-1]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes, "outlierd-default",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, side, side])],
            [helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, count])], graph.weights),
        opset_imports=[helper.make_opsetid("", 13)], producer_name="outlierd")
    model.ir_version = 8
    helper.set_model_props(model, {"outlierd.input": "torch"} | ({"outlierd.views": views} if views else {}))
    onnx.checker.check_model(model)
    return onnx.shape_inference.infer_shapes(model)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("onnx")
    parser.add_argument("--side", type=int, default=224, help="pixels of the input's side")
    parser.add_argument("--views", help="the file's mark outlierd.views; without it one view is taken")
    args = parser.parse_args()
    saved = torch.load(args.checkpoint, weights_only=True)
    backbone = Backbone(saved["width"], saved["stem"])
    backbone.load_state_dict(saved["average"])
    onnx.save(to_onnx(backbone, args.side, args.views), args.onnx)
    print(f"{args.onnx}: step {saved['step']}, {saved['spent'] / 60:.1f} minutes")


if __name__ == "__main__":
    main()
