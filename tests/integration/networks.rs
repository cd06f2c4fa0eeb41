//! Networks as the field writes them: activations, vendors' operators, heads, half precision, data in other files, and
//! files that are no networks.

use outlierd::internals::backbone::onnx::writer::{Initializer, Model};
use outlierd::internals::backbone::onnx::{Attr, DType, Node};
use outlierd::internals::backbone::quantize;
use outlierd::internals::backbone::{Backbone, Error, Options, Pooling, SUMS_KEY};

use crate::common::networks::{alike, features, load, options, picture, quantized, read, refused, small};

// Activations and bounds

/// `small` with other nodes for each ReLU.
fn activated(make: impl Fn(&str, &str) -> Vec<Node>, constants: &[(&str, f32)]) -> Model {
    let mut model = small();
    let nodes = std::mem::take(&mut model.nodes);
    model.nodes = nodes
        .into_iter()
        .flat_map(|n| if n.op == "Relu" { make(&n.inputs[0], &n.outputs[0]) } else { vec![n] })
        .collect();
    model.initializers.extend(constants.iter().map(|(name, v)| Initializer::f32(name, &[], &[*v])));
    model.opsets = vec![(String::new(), 18)];
    model
}

type Activation = (&'static str, Model, fn(f32) -> f32);

fn activations() -> Vec<Activation> {
    let one = |op: &'static str| move |x: &str, y: &str| vec![Node::new(op, &[x], &[y])];
    let silu = |x: &str, y: &str| {
        let a = format!("{y}/0");
        vec![Node::new("Sigmoid", &[x], &[&a]), Node::new("Mul", &[x, &a], &[y])]
    };
    let mish = |x: &str, y: &str| {
        let (a, b) = (format!("{y}/0"), format!("{y}/1"));
        let tanh = Node::new("Tanh", &[&a], &[&b]);
        vec![Node::new("Softplus", &[x], &[&a]), tanh, Node::new("Mul", &[x, &b], &[y])]
    };
    let hard_swish = |x: &str, y: &str| {
        let name = |n: u32| format!("{y}/{n}");
        vec![
            Node::new("Add", &[x, "three"], &[&name(0)]),
            Node::new("Clip", &[&name(0), "zero", "six"], &[&name(1)]),
            Node::new("Mul", &[x, &name(1)], &[&name(2)]),
            Node::new("Div", &[&name(2), "six"], &[y]),
        ]
    };
    // With a cube of x, whose sum with x is no residual sum.
    let gelu = |x: &str, y: &str| {
        let name = |n: u32| format!("{y}/{n}");
        vec![
            Node::new("Pow", &[x, "three"], &[&name(0)]),
            Node::new("Mul", &[&name(0), "k"], &[&name(1)]),
            Node::new("Add", &[x, &name(1)], &[&name(2)]),
            Node::new("Mul", &[&name(2), "q"], &[&name(3)]),
            Node::new("Tanh", &[&name(3)], &[&name(4)]),
            Node::new("Add", &[&name(4), "one"], &[&name(5)]),
            Node::new("Mul", &[x, "half"], &[&name(6)]),
            Node::new("Mul", &[&name(6), &name(5)], &[y]),
        ]
    };
    let clip = |x: &str, y: &str| vec![Node::new("Clip", &[x, "lo", "hi"], &[y])];
    vec![
        ("LeakyRelu", activated(one("LeakyRelu"), &[]), |x| if x < 0.0 { 0.01 * x } else { x }),
        ("Elu", activated(one("Elu"), &[]), |x| if x < 0.0 { x.exp() - 1.0 } else { x }),
        ("Softsign", activated(one("Softsign"), &[]), |x| x / (1.0 + x.abs())),
        ("Tanh", activated(one("Tanh"), &[]), f32::tanh),
        ("HardSwish", activated(one("HardSwish"), &[]), |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
        ("Mish", activated(one("Mish"), &[]), |x| x * x.exp().ln_1p().tanh()),
        ("SiLU in two", activated(silu, &[]), |x| x / (1.0 + (-x).exp())),
        ("Mish in three", activated(mish, &[]), |x| x * x.exp().ln_1p().tanh()),
        ("HardSwish in four", activated(hard_swish, &[("three", 3.0), ("zero", 0.0), ("six", 6.0)]), |x| {
            x * (x / 6.0 + 0.5).clamp(0.0, 1.0)
        }),
        (
            "GELU by tanh",
            activated(gelu, &[("three", 3.0), ("k", 0.044715), ("q", 0.797_884_6), ("one", 1.0), ("half", 0.5)]),
            |x| 0.5 * x * (1.0 + (0.797_884_6 * (x + 0.044715 * x * x * x)).tanh()),
        ),
        ("Max", activated(|x, y| vec![Node::new("Max", &[x, "zero"], &[y])], &[("zero", 0.0)]), |x| x.max(0.0)),
        ("ReLU6", activated(clip, &[("lo", 0.0), ("hi", 0.7)]), |x| x.clamp(0.0, 0.7)),
        ("Clip around zero", activated(clip, &[("lo", -0.4), ("hi", 0.4)]), |x| x.clamp(-0.4, 0.4)),
    ]
}

/// The map of the last stage before pooling.
fn map(bytes: Vec<u8>) -> Vec<f32> {
    let options = Options { pooling: Some(Pooling::None), ..options(None) };
    Backbone::from_bytes("made.onnx", bytes, &options).unwrap().features(&picture(3)).unwrap()
}

#[test]
fn every_activation_behind_the_sum_belongs_to_the_tap() {
    for (what, model, activation) in activations() {
        println!("{what}");
        // The same network that ends with the sum.
        let mut ends = model.clone();
        let at = ends.nodes.iter().position(|n| n.outputs[0] == "layer2.0.sum").unwrap();
        ends.nodes.truncate(at + 1);
        let expected: Vec<f32> = map(ends.to_bytes()).into_iter().map(activation).collect();
        let found = map(model.to_bytes());
        let difference = expected.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(difference < 1e-4 && expected.len() == found.len(), "{what}: {difference}");
        let int8 = map(quantized(model.to_bytes()));
        alike(&int8, &found, 0.995);
    }
}

#[test]
fn bounds_of_a_clip_hold_at_the_tap_in_8_bits() {
    for (what, lo, hi) in [("ReLU6", 0.0, 0.7), ("Clip around zero", -0.4, 0.4)] {
        let model = activations().into_iter().find(|a| a.0 == what).unwrap().1;
        let within = |bytes: Vec<u8>| {
            let values = map(bytes);
            let (least, most) = values.iter().fold((0.0f32, 0.0f32), |(a, b), v| (a.min(*v), b.max(*v)));
            assert!(least >= lo - 1e-6 && most <= hi + 1e-6, "{what}: {least} {most}");
            assert!(most > hi - 0.01, "{what}: {most}");
        };
        let made = quantized(model.to_bytes());
        within(made.clone());
        // ONNX Runtime's quantizer leaves a Clip out whose bounds are those of the rounding.
        let mut model = read(&made);
        model.metadata.retain(|(key, _)| key != SUMS_KEY);
        without(&mut model, "Clip");
        let scale = (hi - lo) / 255.0f32;
        for (what, bytes) in
            [("scale", scale.to_le_bytes().to_vec()), ("zero_point", vec![(-lo / scale).round() as u8])]
        {
            let name = format!("layer2.0.relu3/real/{what}");
            model.initializers.iter_mut().find(|i| i.name == name).unwrap().bytes = bytes;
        }
        let values = map(model.to_bytes());
        assert!(values.iter().all(|v| (lo - 0.01..=hi + 0.01).contains(v)), "{what}");
        assert!(values.iter().any(|v| *v > hi - 0.01), "{what}");
    }
}

/// Takes the nodes of an operator out, with all their inputs but the first.
fn without(model: &mut Model, op: &str) {
    let gone: Vec<Node> = model.nodes.iter().filter(|n| n.op == op).cloned().collect();
    model.nodes.retain(|n| n.op != op);
    for node in gone {
        let outputs = model.nodes.iter_mut().flat_map(|n| &mut n.outputs);
        outputs.filter(|o| **o == node.inputs[0]).for_each(|o| *o = node.outputs[0].clone());
    }
}

// 8 bits

/// The quantized network with signed maps around zero.
fn signed() -> Model {
    let mut model = read(&quantized(small().to_bytes()));
    let points: Vec<String> =
        model.nodes.iter().filter(|n| n.op == "QuantizeLinear").map(|n| n.inputs[1].clone()).collect();
    for scale in points {
        let zero = scale.replace("/scale", "/zero_point");
        let at = |model: &Model, name: &str| model.initializers.iter().position(|i| i.name == *name).unwrap();
        let (s, z) = (at(&model, &scale), at(&model, &zero));
        let level = model.initializers[z].bytes[0];
        let old = f32::from_le_bytes(model.initializers[s].bytes[..].try_into().unwrap());
        let new = old * f32::from(level.max(255 - level)) / 127.0;
        model.initializers[s].bytes = new.to_le_bytes().into();
        (model.initializers[z].dtype, model.initializers[z].bytes) = (DType::I8, vec![0]);
    }
    model
}

#[test]
fn the_type_of_a_map_may_be_in_output_dtype_alone() {
    let with_zero_points = signed();
    let expected = features(with_zero_points.to_bytes());
    alike(&expected, &features(small().to_bytes()), 0.99);
    let mut model = signed();
    model.opsets = vec![(String::new(), 21)];
    let rounded: Vec<String> =
        model.nodes.iter().filter(|n| n.op == "QuantizeLinear").map(|n| n.outputs[0].clone()).collect();
    for node in &mut model.nodes {
        if node.op == "QuantizeLinear" {
            node.attrs.push(("output_dtype".into(), Attr::Int(3)));
            node.inputs.truncate(2);
        } else if node.op == "DequantizeLinear" && rounded.contains(&node.inputs[0]) {
            node.inputs.truncate(2);
        }
    }
    let backbone = load(model.to_bytes(), None).unwrap();
    assert!(backbone.fusion().is_whole(), "{:?}", backbone.fusion());
    assert_eq!(backbone.features(&picture(3)).unwrap(), expected);
}

#[test]
fn microsofts_domain_of_roundings_is_read() {
    let mut model = read(&quantized(small().to_bytes()));
    let expected = features(model.to_bytes());
    for node in model.nodes.iter_mut().filter(|n| n.op.ends_with("QuantizeLinear") || n.op == "DequantizeLinear") {
        node.domain = "com.microsoft".into();
    }
    assert_eq!(features(model.to_bytes()), expected);
}

#[test]
fn maps_of_16_bits_are_refused_by_their_type() {
    let mut model = read(&quantized(small().to_bytes()));
    for tensor in model.initializers.iter_mut().filter(|i| i.dtype == DType::U8 && i.name.ends_with("zero_point")) {
        (tensor.dtype, tensor.bytes) = (DType::U16, vec![tensor.bytes[0], 0]);
    }
    refused(model.to_bytes(), &["rounds a map to UINT16", "8 bits"]);
    let mut model = signed();
    for node in model.nodes.iter_mut().filter(|n| n.op == "QuantizeLinear") {
        node.attrs.push(("output_dtype".into(), Attr::Int(5)));
        node.inputs.truncate(2);
    }
    refused(model.to_bytes(), &["rounds a map to INT16"]);
}

// Domains and functions

/// A field of bytes of a protobuf message.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    let mut varint = |mut v: usize| {
        while v >= 0x80 {
            out.push(v as u8 | 0x80);
            v >>= 7;
        }
        out.push(v as u8);
    };
    varint(usize::from(number) << 3 | 2);
    varint(bytes.len());
    [&out, bytes].concat()
}

fn number(number: u8, value: u8) -> [u8; 2] {
    [number << 3, value]
}

#[test]
fn operators_of_other_domains_are_refused_by_domain_and_name() {
    let foreign = |only: &str| {
        let mut model = small();
        for node in model.nodes.iter_mut().filter(|n| n.op == "Relu" && n.outputs[0].contains(only)) {
            node.domain = "my.layers".into();
        }
        model.to_bytes()
    };
    // All of them; in front of the first stage; behind the last sum.
    for only in ["", "layer1.0.relu1", "layer2.0.relu3"] {
        refused(foreign(only), &["Relu", "my.layers"]);
    }
    // The same behind a rounding.
    let mut rounded = read(&quantized(small().to_bytes()));
    let last = Node::new("Relu", &["layer2.0.relu3"], &["end"]);
    rounded.nodes.retain(|n| n.outputs[0] != "layer2.0.relu3/real");
    for input in rounded.nodes.iter_mut().flat_map(|n| &mut n.inputs).filter(|i| *i == "layer2.0.relu3/real") {
        *input = "layer2.0.sum".into();
    }
    rounded.nodes.push(Node { domain: "my.layers".into(), ..last });
    refused(rounded.to_bytes(), &["Relu", "my.layers"]);
    let mut renamed = small();
    for node in renamed.nodes.iter_mut().filter(|n| n.op == "Relu") {
        (node.op, node.domain) = ("Swoosh".into(), "org.made.up".into());
    }
    refused(renamed.to_bytes(), &["Swoosh", "org.made.up"]);
    let mut blocked = small();
    for node in blocked.nodes.iter_mut().filter(|n| n.op == "Conv") {
        node.domain = "com.microsoft.nchwc".into();
    }
    refused(blocked.to_bytes(), &["com.microsoft.nchwc", "ONNX Runtime", "ORT_ENABLE_BASIC"]);
    // A function of the file has the last word, also over a standard operator.
    for domain in ["my.layers", ""] {
        let mut bytes = if domain.is_empty() { small().to_bytes() } else { foreign("") };
        bytes.extend(field(25, &[field(1, b"Relu"), field(10, domain.as_bytes())].concat()));
        refused(bytes, &["Relu", "a function that the file defines itself"]);
    }
}

#[test]
fn fused_convolutions_of_onnx_runtime_run() {
    let mut model = small();
    let expected = features(model.to_bytes());
    let nodes = std::mem::take(&mut model.nodes);
    for node in nodes {
        let before = model.nodes.last_mut().filter(|n| n.op == "Conv" && n.outputs[0] == node.inputs[0]);
        match before {
            Some(conv) if node.op == "Relu" => {
                (conv.op, conv.domain) = ("FusedConv".into(), "com.microsoft".into());
                conv.attrs.push(("activation".into(), Attr::Str("Relu".into())));
                conv.outputs = node.outputs;
            }
            _ => model.nodes.push(node),
        }
    }
    assert!(model.nodes.iter().filter(|n| n.op == "FusedConv").count() >= 5);
    alike(&features(model.to_bytes()), &expected, 0.999_999);
}

// What lies behind the last tap

#[test]
fn what_lies_behind_the_last_tap_does_not_matter() {
    let expected = features(small().to_bytes());
    let int8 = features(quantized(small().to_bytes()));
    let ints = |values: &[i64]| Attr::Ints(values.to_vec());
    let heads: Vec<(&str, i64, Vec<Node>)> = vec![
        ("string labels", 13, vec![Node::new("Gather", &["labels", "features"], &["label"])]),
        (
            "4 bits",
            21,
            vec![
                Node::new("DequantizeLinear", &["four", "scale"], &["w"]),
                Node::new("MatMul", &["features", "w"], &["z"]),
            ],
        ),
        (
            "Slice",
            9,
            vec![
                Node::new("Slice", &["features"], &["z"])
                    .with("axes", ints(&[1]))
                    .with("starts", ints(&[0]))
                    .with("ends", ints(&[3])),
            ],
        ),
        ("Split", 11, vec![Node::new("Split", &["features"], &["z", "z2"]).with("split", ints(&[16, 16]))]),
        ("TopK", 9, vec![Node::new("TopK", &["features"], &["z", "z2"]).with("k", Attr::Int(3))]),
        ("Resize", 10, vec![Node::new("Resize", &["layer2.0.relu3", "scale"], &["z"])]),
        (
            "Cosine",
            11,
            vec![
                Node::new("ReduceL2", &["features"], &["length"]).with("axes", ints(&[1])),
                Node::new("Div", &["features", "length"], &["z"]),
            ],
        ),
        (
            "another domain",
            13,
            vec![Node { domain: "my.ops".into(), ..Node::new("Pool", &["layer2.0.relu3"], &["z"]) }],
        ),
        (
            "a rounding of 16 bits",
            21,
            vec![Node::new("QuantizeLinear", &["features", "scale"], &["z"]).with("output_dtype", Attr::Int(4))],
        ),
        (
            "training",
            13,
            vec![Node::new("BatchNormalization", &["features", "scale", "scale", "scale", "scale"], &["z", "m", "v"])],
        ),
    ];
    // A tensor of text and one of 4 bits, which the writer does not know.
    let text = [field(8, b"labels"), number(1, 1).into(), number(2, 8).into(), field(6, b"tile")].concat();
    let four = [field(8, b"four"), number(1, 2).into(), number(2, 22).into(), field(9, &[0x21])].concat();
    for (what, opset, nodes) in heads {
        println!("{what}");
        let mut model = small();
        model.opsets = vec![(String::new(), opset)];
        model.initializers.push(Initializer::f32("scale", &[1], &[0.1]));
        model.outputs[0].name = nodes.last().unwrap().outputs[0].clone();
        model.nodes.extend(nodes);
        let mut bytes = model.to_bytes();
        bytes.extend(field(7, &[field(5, &text), field(5, &four)].concat()));
        assert_eq!(features(bytes.clone()), expected, "{what}");
        let made = quantized(bytes);
        assert_eq!(features(made.clone()), int8, "{what}");
        let kept = read(&made).nodes;
        assert!(kept.iter().all(|n| ["z", "label"].iter().all(|gone| !n.outputs.iter().any(|o| o == gone))), "{what}");
    }
    // In front of the tap it does.
    let mut model = small();
    model.nodes.iter_mut().find(|n| n.outputs[0] == "layer1.0.conv1").unwrap().inputs[1] = "four".into();
    let mut bytes = model.to_bytes();
    bytes.extend(field(7, &field(5, &four)));
    refused(bytes, &["layer1.0.conv1", "\"four\"", "INT4"]);
    let mut model = small();
    model.nodes.iter_mut().find(|n| n.outputs[0] == "layer1.0.conv1").unwrap().inputs[1] = "nothing".into();
    refused(model.to_bytes(), &["layer1.0.conv1", "which nothing makes"]);
}

// Weights

fn half(v: f32) -> [u8; 2] {
    // Normal numbers suffice here; smaller ones become 0.
    let bits = v.to_bits();
    let exponent = (bits >> 23 & 0xff) as i32 - 127 + 15;
    let value = if exponent <= 0 { 0 } else { ((exponent as u32) << 10) + (bits >> 13 & 0x3ff) };
    ((bits >> 16 & 0x8000 | value) as u16).to_le_bytes()
}

fn brain(v: f32) -> [u8; 2] {
    ((v.to_bits() >> 16) as u16).to_le_bytes()
}

/// A graph of initializers alone, which the reader joins with the model's.
fn tensors(list: &[Initializer], code: u8, data: impl Fn(&Initializer) -> Vec<u8>) -> Vec<u8> {
    let one = |i: &Initializer| {
        let dims: Vec<u8> = i.dims.iter().flat_map(|d| number(1, *d as u8)).collect();
        assert!(i.dims.iter().all(|d| *d < 128));
        field(5, &[field(8, i.name.as_bytes()), dims, number(2, code).into(), data(i)].concat())
    };
    field(7, &list.iter().map(one).collect::<Vec<_>>().concat())
}

#[test]
fn half_precision_is_read() {
    let expected = features(small().to_bytes());
    type Half = (u8, fn(f32) -> [u8; 2], f64);
    let kinds: [Half; 2] = [(10, half, 0.999_99), (16, brain, 0.999)];
    for (code, narrow, least) in kinds {
        let mut model = small();
        let weights = std::mem::take(&mut model.initializers);
        // The picture is single, and rounded by a Cast; what comes out is cast back.
        model.nodes[0].inputs[0] = "narrow".into();
        model.nodes.insert(0, Node::new("Cast", &["input"], &["narrow"]).with("to", Attr::Int(code.into())));
        let bytes = [
            model.to_bytes(),
            tensors(&weights, code, |i| {
                let values = i.bytes.as_chunks::<4>().0.iter();
                field(9, &values.flat_map(|b| narrow(f32::from_le_bytes(*b))).collect::<Vec<_>>())
            }),
        ]
        .concat();
        alike(&features(bytes.clone()), &expected, least);
        alike(&features(quantized(bytes)), &expected, least.min(0.998));
    }
}

#[test]
fn data_in_a_file_beside_the_model_is_read() {
    let expected = features(small().to_bytes());
    let mut model = small();
    let weights = std::mem::take(&mut model.initializers);
    let data: Vec<u8> = weights.iter().flat_map(|i| i.bytes.iter().copied()).collect();
    let write = |location: &str| {
        let entry =
            |key: &str, value: &str| field(13, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat());
        let place = |i: &Initializer| {
            let before = weights.iter().take_while(|other| other.name != i.name).map(|i| i.bytes.len()).sum::<usize>();
            let entries = [
                entry("location", location),
                entry("offset", &before.to_string()),
                entry("length", &i.bytes.len().to_string()),
            ];
            [entries.concat(), number(14, 1).into()].concat()
        };
        [model.to_bytes(), tensors(&weights, 1, place)].concat()
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("net.onnx");
    std::fs::write(&path, write("net.onnx.data")).unwrap();
    let open = || Backbone::load(&path, &options(None));
    let reason = || open().unwrap_err().to_string();
    assert!(reason().contains("net.onnx.data") && reason().contains("not beside it"), "{}", reason());
    std::fs::write(dir.path().join("net.onnx.data"), &data).unwrap();
    let first = open().unwrap();
    assert_eq!(first.features(&picture(3)).unwrap(), expected);
    let network = quantize::Network::open(&path, None, None).unwrap();
    assert_eq!(network.input().name(), "torch");
    // Other weights are another network.
    let mut other = data.clone();
    other[3] ^= 1;
    std::fs::write(dir.path().join("net.onnx.data"), &other).unwrap();
    let wanted = Options { sha256: Some(first.sha256()), ..options(None) };
    let error = Backbone::load(&path, &wanted).unwrap_err();
    assert!(matches!(error, Error::OtherFile { .. }), "{error}");
    std::fs::write(dir.path().join("net.onnx.data"), &data[..data.len() - 1]).unwrap();
    assert!(reason().contains("ends early"), "{}", reason());
    // Only files beside it, and only where there is a folder.
    for far in ["../net.onnx.data", "/etc/passwd", ""] {
        std::fs::write(&path, write(far)).unwrap();
        assert!(reason().contains("outside of its folder"), "{}", reason());
    }
    refused(write("net.onnx.data"), &["net.onnx.data", "save the model as one file"]);
}

// Reasons

#[test]
fn what_a_file_is_instead_of_a_network_is_said() {
    let lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 97446381\n";
    let files: [(&[u8], &str); 6] = [
        (lfs, "Git LFS"),
        (b"\x18\0\0\0ORTM\0\0\0\0", ".ort"),
        (b"\x1c\0\0\0TFL3\0\0\0\0", "TensorFlow Lite"),
        (b"PK\x03\x04\0\0\0\0\0", "zip archive"),
        (b"<!doctype html><title>Not found</title>", "web page"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "gzip"),
    ];
    for (bytes, word) in files {
        refused(bytes.to_vec(), &["made.onnx", word]);
    }
}

#[test]
fn a_batch_norm_in_training_is_refused() {
    let network = |opset: i64, mode: Option<i64>, outputs: &[&str]| {
        let mut model = small();
        let at = model.nodes.iter().position(|n| n.outputs[0] == "relu1").unwrap();
        model.nodes[at].inputs[0] = "normal".into();
        let outputs = [&["normal"], outputs].concat();
        let mut norm = Node::new("BatchNormalization", &["conv1", "one", "zero", "zero", "one"], &outputs);
        norm.attrs.extend(mode.map(|mode| ("training_mode".to_string(), Attr::Int(mode))));
        model.nodes.insert(at, norm);
        model.opsets = vec![(String::new(), opset)];
        model.initializers.extend([("one", 1.0), ("zero", 0.0)].map(|(n, v)| Initializer::f32(n, &[4], &[v; 4])));
        model.to_bytes()
    };
    refused(network(15, Some(1), &["mean", "var"]), &["normal", "training", "eval()"]);
    refused(network(9, None, &["mean", "var", "a", "b"]), &["training"]);
    alike(&features(network(15, Some(0), &[])), &features(small().to_bytes()), 0.9999);
}

/// Four stages as Keras' ResNetV2 has them: a norm in front of each block, the stride in a stage's last block.
fn version_2() -> Model {
    let mut model = small();
    model.nodes.truncate(1);
    model.initializers.truncate(2);
    let mut seed = 1u32;
    let mut noise = move || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let pool = |x: &str, y: &str, side: i64| {
        let node = Node::new("MaxPool", &[x], &[y]).with("kernel_shape", Attr::Ints(vec![side; 2]));
        node.with("strides", Attr::Ints(vec![2; 2])).with("pads", Attr::Ints(vec![side / 2; 4]))
    };
    model.nodes.push(pool("conv1", "s0", 3));
    let (mut x, mut width) = ("s0".to_string(), 4);
    for stage in 0..4 {
        let wide = 8 << stage;
        for block in 0..2 {
            let name = |what: &str| format!("b{stage}.{block}.{what}");
            let mut constant = |what: &str, dims: &[usize], base: f32, spread: f32| {
                let values: Vec<f32> = (0..dims.iter().product()).map(|_| base + spread * noise()).collect();
                model.initializers.push(Initializer::f32(&name(what), dims, &values));
                name(what)
            };
            let norm = [("g", 1.0), ("b", 0.0), ("m", 0.0), ("v", 1.0)].map(|(n, v)| constant(n, &[width], v, 0.4));
            let inputs: Vec<&str> = [&x].into_iter().chain(&norm).map(String::as_str).collect();
            model.nodes.push(Node::new("BatchNormalization", &inputs, &[&name("norm")]));
            model.nodes.push(Node::new("Relu", &[&name("norm")], &[&name("relu")]));
            let stride = if block == 1 && stage < 3 { 2 } else { 1 };
            let weight = constant("w", &[wide, width, 3, 3], 0.0, 2.0 / (width as f32).sqrt() / 3.0);
            let conv = Node::new("Conv", &[&name("relu"), &weight], &[&name("conv")]);
            let conv = conv.with("pads", Attr::Ints(vec![1; 4])).with("strides", Attr::Ints(vec![stride; 2]));
            model.nodes.push(conv);
            let shortcut = match (block, stride) {
                (0, _) => {
                    let weight = constant("p", &[wide, width, 1, 1], 0.0, 2.0 / (width as f32).sqrt());
                    model.nodes.push(Node::new("Conv", &[&name("relu"), &weight], &[&name("short")]));
                    name("short")
                }
                (_, 2) => {
                    model.nodes.push(pool(&x, &name("short"), 1));
                    name("short")
                }
                _ => x.clone(),
            };
            model.nodes.push(Node::new("Add", &[&shortcut, &name("conv")], &[&name("sum")]));
            (x, width) = (name("sum"), wide);
        }
    }
    let norm: Vec<String> = ["g", "b", "m", "v"].map(|n| format!("end.{n}")).into();
    for (name, value) in norm.iter().zip([1.0, 0.0, 0.0, 1.0]) {
        model.initializers.push(Initializer::f32(name, &[width], &vec![value; width]));
    }
    let inputs: Vec<&str> = [&x].into_iter().chain(&norm).map(String::as_str).collect();
    model.nodes.push(Node::new("BatchNormalization", &inputs, &["end.norm"]));
    model.nodes.push(Node::new("Relu", &["end.norm"], &["end"]));
    model.nodes.push(Node::new("GlobalAveragePool", &["end"], &["features"]));
    model
}

#[test]
fn the_stages_of_keras_version_2_are_told() {
    let options = Options { tap: Some("layer1+layer2+layer3+layer4".parse().unwrap()), ..options(None) };
    let backbone = Backbone::from_bytes("v2.onnx", version_2().to_bytes(), &options).unwrap();
    let maps = backbone.forward(&backbone.prepare(&picture(3)).unwrap()).unwrap().remove(0);
    let shapes: Vec<[usize; 3]> = maps.iter().map(|m| [m.height, m.width, m.channels]).collect();
    assert_eq!(shapes, [[4, 4, 8], [2, 2, 16], [1, 1, 32], [1, 1, 64]]);
    // The sum itself is the stage's output, not the norm of the next block: as if the file ended there.
    let mut ends = version_2();
    let at = ends.nodes.iter().position(|n| n.outputs[0] == "b3.1.sum").unwrap();
    ends.nodes.truncate(at + 1);
    let expected = load(ends.to_bytes(), None).unwrap().features(&picture(3)).unwrap();
    assert_eq!(backbone.pool_crop(&maps[3..]), expected);
    assert!(expected.iter().any(|v| *v < 0.0));
    let int8 = load(quantized(version_2().to_bytes()), None).unwrap();
    alike(&int8.features(&picture(3)).unwrap(), &expected, 0.99);
}
