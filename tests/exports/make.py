"""Makes the files of this folder: narrow ResNets as the usual exporters and quantizers write them.

    python make.py STEP --work DIR [--only NAME]

The steps, in order, each with what it needs from PyPI (expected.json has the versions that made the committed files):

    torch    torch, torchvision, timm, onnx, onnxscript: Gluon's, torchvision's and timm's networks in float
    keras    tensorflow-cpu, tf2onnx: Keras' ResNet50 in float
    ort      onnxruntime, onnx: int8 by ONNX Runtime's static quantizer
    inc      onnx-neural-compressor: int8 by Intel Neural Compressor
    expect   onnxruntime, onnx: expected.json and the compressed files

DIR holds the files between the steps; --only limits a step to one network.
"""
import argparse
import gzip
import json
import pathlib
from importlib.metadata import version

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pictures import SIDE, prepared

HERE = pathlib.Path(__file__).parent
PICTURES = 2
TORCH = {
    "gluon-resnet50": 4,
    "torchvision-resnet50": 4,
    "torchvision-resnet18": 4,
    "torchvision-resnet34": 2,
    "torchvision-resnet101": 2,
    "torchvision-wide_resnet50_2": 2,
    "timm-resnet50": 2,
    "timm-resnet50d": 2,
}


def note(work, **versions):
    path = work / "versions.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | versions))


def trim(path):
    """Weights of eight bits of mantissa, which compress well."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 4:
            bits = numpy_helper.to_array(tensor).view(np.uint32)
            rounded = (bits + 0x8000 & 0xFFFF0000).astype(np.uint32).view(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
    onnx.save(model, path)


# torch


def export_torch(net, path, **how):
    import torch

    how = {"opset_version": 17, "input_names": ["input"], "output_names": ["output"]} | how
    torch.onnx.export(net, torch.from_numpy(prepared(0)), str(path), **how)


def gluon(net, path):
    """The way in which MXNet's exporter writes Gluon's resnet50_v1."""
    nodes, inits = [], []
    counts = {}

    def number(what):
        counts[what] = counts.get(what, -1) + 1
        return counts[what]

    def param(name, tensor):
        inits.append(numpy_helper.from_array(tensor.detach().numpy(), name))
        return name

    def conv(x, module, prefix):
        name = f"{prefix}conv{number(prefix + 'conv')}"
        inputs = [x, param(f"{name}_weight", module.weight)]
        if module.bias is not None:
            inputs.append(param(f"{name}_bias", module.bias))
        nodes.append(
            helper.make_node(
                "Conv", inputs, [f"{name}_fwd"], f"{name}_fwd", dilations=[1, 1], group=1,
                kernel_shape=list(module.kernel_size), pads=list(module.padding) * 2, strides=list(module.stride),
            )
        )
        return f"{name}_fwd"

    def bn(x, module, prefix):
        name = f"{prefix}batchnorm{number(prefix + 'batchnorm')}"
        tensors = [module.weight, module.bias, module.running_mean, module.running_var]
        names = [param(f"{name}_{n}", t) for n, t in zip(("gamma", "beta", "running_mean", "running_var"), tensors)]
        how = dict(epsilon=1e-5, momentum=0.9)
        nodes.append(helper.make_node("BatchNormalization", [x, *names], [f"{name}_fwd"], f"{name}_fwd", **how))
        return f"{name}_fwd"

    def relu(x, name):
        nodes.append(helper.make_node("Relu", [x], [name], name))
        return name

    root = "resnetv17_"
    x = bn(conv("data", net.conv1, root), net.bn1, root)
    x = relu(x, f"{root}relu0_fwd")
    pool = dict(kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])
    nodes.append(helper.make_node("MaxPool", [x], [f"{root}pool0_fwd"], f"{root}pool0_fwd", **pool))
    x = f"{root}pool0_fwd"
    for i in range(1, 5):
        prefix = f"{root}stage{i}_"
        for j, block in enumerate(getattr(net, f"layer{i}")):
            a = relu(bn(conv(x, block.conv1, prefix), block.bn1, prefix), f"{prefix}relu{number(prefix + 'relu')}_fwd")
            b = relu(bn(conv(a, block.conv2, prefix), block.bn2, prefix), f"{prefix}relu{number(prefix + 'relu')}_fwd")
            c = bn(conv(b, block.conv3, prefix), block.bn3, prefix)
            if block.downsample is not None:
                x = bn(conv(x, block.downsample[0], prefix), block.downsample[1], prefix)
            nodes.append(helper.make_node("Add", [x, c], [f"{prefix}_plus{j}"], f"{prefix}_plus{j}"))
            x = relu(f"{prefix}_plus{j}", f"{prefix}activation{j}")
    nodes.append(helper.make_node("GlobalAveragePool", [x], [f"{root}pool1_fwd"], f"{root}pool1_fwd"))
    nodes.append(helper.make_node("Flatten", [f"{root}pool1_fwd"], ["flatten_473"], "flatten_473"))
    dense = [param(f"{root}dense0_weight", net.fc.weight), param(f"{root}dense0_bias", net.fc.bias)]
    out = f"{root}dense0_fwd"
    nodes.append(helper.make_node("Gemm", ["flatten_473", *dense], [out], out, alpha=1.0, beta=1.0, transA=0, transB=1))
    info = lambda name, dims: helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
    inputs = [info("data", ["N", 3, SIDE, SIDE])]
    graph = helper.make_graph(nodes, "mxnet_converted_model", inputs, [info(out, ["N", 10])], inits)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=7)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def step_torch(work, names):
    from networks import build

    dynamic = {"input": {0: "batch"}, "output": {0: "batch"}}
    for kind, width in TORCH.items():
        if names and kind not in names:
            continue
        net = build(kind, width)
        if kind == "gluon-resnet50":
            gluon(net, work / f"{kind}.onnx")
            continue
        export_torch(net, work / f"{kind}.onnx", dynamo=False, dynamic_axes=dynamic)
        if kind == "torchvision-resnet50":
            # Batch norm as nodes of its own, which folding otherwise removes.
            from torch.onnx import TrainingMode

            plain = dict(dynamo=False, training=TrainingMode.PRESERVE, do_constant_folding=False, dynamic_axes=dynamic)
            export_torch(net, work / f"{kind}-batchnorm.onnx", **plain)
            export_torch(net, work / f"{kind}-dynamo.onnx", dynamo=True, opset_version=18, external_data=False)
    for path in work.glob("*.onnx"):
        if path.stem.removesuffix("-batchnorm").removesuffix("-dynamo") in TORCH:
            trim(path)
    note(work, **{name: version(name) for name in ("torch", "torchvision", "timm", "onnx")})


# keras


def step_keras(work, names):
    import tensorflow as tf
    import tf2onnx
    from keras.src.applications.resnet import ResNet, stack_residual_blocks_v1

    tf.keras.utils.set_random_seed(50)

    def stages(x):
        for i, n in enumerate((3, 4, 6, 3)):
            x = stack_residual_blocks_v1(x, 4 << i, n, name=f"conv{i + 2}", **({"stride1": 1} if i == 0 else {}))
        return x

    net = ResNet(stages, False, True, name="resnet50", weights=None, input_shape=(SIDE, SIDE, 3), classes=10,
                 weights_name="resnet50")
    pictures = np.concatenate([prepared(seed, "caffe") for seed in range(100, 132)]).transpose(0, 2, 3, 1)
    rng = np.random.default_rng(50)
    for layer in net.layers:
        if layer.name.endswith("_bn"):
            gamma, beta, mean, var = layer.get_weights()
            uniform, normal = rng.uniform(0.5, 1.5, gamma.shape), rng.normal(0, 0.3, beta.shape)
            layer.set_weights([uniform.astype(np.float32), normal.astype(np.float32), mean, var])
            layer.momentum = 0.0
    net(pictures, training=True)
    for layer in net.layers:
        rounded = [tf.cast(tf.cast(w, tf.bfloat16), tf.float32).numpy() for w in layer.get_weights()]
        layer.set_weights(rounded)
    signature = [tf.TensorSpec((None, SIDE, SIDE, 3), tf.float32, name="input_1")]
    call = tf.function(lambda x: net(x, training=False), input_signature=signature)
    path = work / "keras-resnet50.onnx"
    tf2onnx.convert.from_function(call, input_signature=signature, opset=13, output_path=str(path))
    trim(path)
    note(work, **{name: version(name) for name in ("tensorflow-cpu", "keras", "tf2onnx")})


# int8


def layout(model):
    """Name of the input, recipe, and whether it is NHWC."""
    inits = {i.name for i in model.graph.initializer}
    (info,) = [i for i in model.graph.input if i.name not in inits]
    nhwc = info.type.tensor_type.shape.dim[-1].dim_value == 3
    return info.name, "caffe" if nhwc else "torch", nhwc


def feeds(model, seeds):
    name, order, nhwc = layout(model)
    for seed in seeds:
        value = prepared(seed, order)
        yield {name: np.ascontiguousarray(value.transpose(0, 2, 3, 1)) if nhwc else value}


class Reader:
    """ONNX Runtime's CalibrationDataReader."""

    def __init__(self, path):
        self.model = onnx.load(path)
        self.rewind()

    def rewind(self):
        self.all = iter(list(feeds(self.model, range(100, 132))))

    def get_next(self):
        return next(self.all, None)

    def __iter__(self):
        return iter(list(feeds(self.model, range(100, 132))))

    def __len__(self):
        return 32


QUANTIZED = (
    "gluon-resnet50", "torchvision-resnet50", "torchvision-resnet18", "torchvision-resnet34", "torchvision-resnet101",
    "torchvision-wide_resnet50_2", "timm-resnet50", "timm-resnet50d", "keras-resnet50",
)


def step_ort(work, names):
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    CalibrationDataReader.register(Reader)
    s8 = dict(activation_type=QuantType.QInt8, extra_options={"ActivationSymmetric": True})
    ways = {
        "qdq": dict(quant_format=QuantFormat.QDQ, per_channel=True),
        "int8": dict(quant_format=QuantFormat.QOperator, per_channel=True),
        # s8 activations around zero: Relu stays, as for TensorRT.
        "qdq-s8": dict(quant_format=QuantFormat.QDQ, per_channel=True) | s8,
    }
    for name in QUANTIZED:
        if names and name not in names:
            continue
        source, prepared_path = work / f"{name}.onnx", work / f"{name}.prepared"
        quant_pre_process(str(source), str(prepared_path), skip_symbolic_shape=True)
        for way, how in ways.items():
            if way == "qdq-s8" and name != "torchvision-resnet50":
                continue
            how = dict(activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8) | how
            if way == "qdq":
                # Before operator set 13 a DequantizeLinear has one scale.
                how["per_channel"] = onnx.load(source).opset_import[0].version >= 13
            quantize_static(str(prepared_path), str(work / f"{name}-{way}.onnx"), Reader(source), **how)
        prepared_path.unlink()
    note(work, onnxruntime=version("onnxruntime"))


def step_inc(work, names):
    from onnx_neural_compressor import data_reader
    from onnx_neural_compressor.quantization import QuantFormat, config, quantize

    class Calibration(Reader, data_reader.CalibrationDataReader):
        pass

    ways = {"inc-int8": (QuantFormat.QOperator, True), "inc-qdq": (QuantFormat.QDQ, False)}
    for name in ("gluon-resnet50",):
        source = work / f"{name}.onnx"
        for way, (form, per_channel) in ways.items():
            how = config.StaticQuantConfig(Calibration(source), quant_format=form, per_channel=per_channel)
            quantize(str(source), str(work / f"{name}-{way}.onnx"), how)
    note(work, **{"onnx-neural-compressor": version("onnx-neural-compressor")})


# expected features


def stages(model):
    """The names of the residual sums in order."""
    constants = {i.name for i in model.graph.initializer}
    sums = [n for n in model.graph.node if n.op_type in ("Add", "Sum", "QLinearAdd")]
    data = lambda n: (0, 3) if n.op_type == "QLinearAdd" else (0, 1)
    return [n for n in sums if not any(n.input[i] in constants for i in data(n))]


def follow(model, value):
    """The value behind the sum `value` that the next block reads: behind ReLU, Q and DQ; and a QOperator's scale."""
    users = lambda v: [n for n in model.graph.node if v in n.input]
    while True:
        after = [n for n in users(value) if n.op_type in ("Relu", "Clip", "QuantizeLinear", "DequantizeLinear")]
        if not after:
            return value
        value = after[0].output[0]


def features(model):
    import onnxruntime as ort

    constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    sums = stages(model)
    ends = [follow(model, n.output[0]) for n in sums]
    quant = {}
    for node, end in zip(sums, ends):
        if node.op_type == "QLinearAdd" and end == node.output[0]:
            quant[end] = constants[node.input[6]], constants[node.input[7]]
    for end in ends:
        kind = TensorProto.FLOAT
        if end in quant:
            kind = helper.np_dtype_to_tensor_dtype(quant[end][1].dtype)
        probe.graph.output.append(helper.make_tensor_value_info(end, kind, None))
    session = ort.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    rows = []
    for feed in feeds(model, range(PICTURES)):
        last = {}
        for end, value in zip(ends, session.run(ends, feed)):
            if end in quant:
                scale, zero = quant[end]
                value = (value.astype(np.float32) - np.float32(zero)) * scale
            last[value.shape] = np.maximum(value, 0).mean((2, 3))[0]
        assert len(last) == 4, list(last)
        rows.append([[float(f"{v:.5g}") for v in row] for row in last.values()])
    return rows


def step_expect(work, names):
    expected = {"versions": json.loads((work / "versions.json").read_text()), "features": {}}
    for path in sorted(work.glob("*.onnx")):
        model = onnx.load(path)
        del model.graph.value_info[:]
        model.doc_string = model.graph.doc_string = ""
        for node in model.graph.node:
            node.doc_string = ""
            del node.metadata_props[:]
        expected["features"][path.stem] = features(model)
        packed = gzip.compress(model.SerializeToString(), 9, mtime=0)
        (HERE / f"{path.name}.gz").write_bytes(packed)
        print(f"{path.stem}: {len(packed)} bytes")
    text = json.dumps(expected, separators=(",", ":")).replace("]]],", "]]],\n")
    (HERE / "expected.json").write_text(text + "\n")


def main():
    steps = {name[5:]: step for name, step in globals().items() if name.startswith("step_")}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=steps)
    parser.add_argument("--only", action="append", metavar="NAME")
    parser.add_argument("--work", type=pathlib.Path, required=True)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    steps[args.step](args.work, args.only)


if __name__ == "__main__":
    main()
