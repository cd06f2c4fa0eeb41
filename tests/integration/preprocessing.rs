//! Networks that normalise their picture themselves.

use outlierd::internals::backbone::onnx::writer::{Dim, Initializer, Model};
use outlierd::internals::backbone::onnx::{Attr, DType, Node};
use outlierd::internals::image::{ChannelOrder, InputRecipe};

use crate::common::networks::{alike, features, load, picture, quantized, read, refused, small};

const MEAN: [f32; 3] = [123.675, 116.28, 103.53];
const STD: [f32; 3] = [58.395, 57.12, 57.375];

/// `small` with `nodes` in front, which make `pre` of `input`.
fn prepared(nodes: Vec<Node>, constants: Vec<Initializer>, channels_last: bool) -> Model {
    let mut model = small();
    model.nodes[0].inputs[0] = "pre".into();
    model.nodes.splice(0..0, nodes);
    model.initializers.extend(constants);
    if channels_last {
        model.inputs[0].dims = [1, 32, 32, 3].map(Dim::Fixed).into();
    }
    model
}

fn first(name: &str, values: [f32; 3]) -> Initializer {
    Initializer::f32(name, &[1, 3, 1, 1], &values)
}

fn last(name: &str, values: [f32; 3]) -> Initializer {
    Initializer::f32(name, &[3], &values)
}

fn transpose(from: &str, to: &str) -> Node {
    Node::new("Transpose", &[from], &[to]).with("perm", Attr::Ints(vec![0, 3, 1, 2]))
}

fn sub_div(from: &str, to: &str) -> Vec<Node> {
    vec![Node::new("Sub", &[from, "mean"], &["centred"]), Node::new("Div", &["centred", "std"], &[to])]
}

#[test]
fn preprocessing_in_the_graph_is_done_once() {
    let of = |values: [f32; 3], f: fn(f32) -> f32| values.map(f);
    let unit = |values: [f32; 3]| of(values, |v| v / 255.0);
    let batch_norm = |mean: [f32; 3], std: [f32; 3]| {
        let row = |name: &str, values: [f32; 3]| Initializer::f32(name, &[3], &values);
        let constants =
            vec![row("g", [1.0; 3]), row("b", [0.0; 3]), row("m", mean), row("v", std.map(|std| std * std))];
        let node = Node::new("BatchNormalization", &["input", "g", "b", "m", "v"], &["pre"]);
        (vec![node.with("epsilon", Attr::Float(0.0))], constants)
    };
    let scaled: [f32; 3] = std::array::from_fn(|c| -MEAN[c] / STD[c]);
    let mut after = vec![transpose("input", "first")];
    after.extend(sub_div("first", "pre"));
    let mut before = sub_div("input", "normal");
    before.push(transpose("normal", "pre"));
    let mut divided = vec![Node::new("Div", &["input", "levels"], &["share"])];
    divided.extend(sub_div("share", "pre"));
    let mul_add = vec![Node::new("Mul", &["input", "a"], &["scaled"]), Node::new("Add", &["scaled", "b"], &["pre"])];
    let (raw_norm, raw_constants) = batch_norm(MEAN, STD);
    let (unit_norm, unit_constants) = batch_norm(unit(MEAN), unit(STD));
    let graphs = [
        ("raw", prepared(sub_div("input", "pre"), vec![first("mean", MEAN), first("std", STD)], false)),
        ("unit", prepared(sub_div("input", "pre"), vec![first("mean", unit(MEAN)), first("std", unit(STD))], false)),
        ("scaled", prepared(mul_add, vec![first("a", STD.map(|s| 1.0 / s)), first("b", scaled)], false)),
        (
            "divided",
            prepared(
                divided,
                vec![first("mean", unit(MEAN)), first("std", unit(STD)), Initializer::f32("levels", &[], &[255.0])],
                false,
            ),
        ),
        ("behind a transpose", prepared(after, vec![first("mean", MEAN), first("std", STD)], true)),
        ("before a transpose", prepared(before.clone(), vec![last("mean", MEAN), last("std", STD)], true)),
        ("batch norm, raw", prepared(raw_norm, raw_constants, false)),
        ("batch norm, unit", prepared(unit_norm, unit_constants, false)),
    ];
    let expected = features(small().to_bytes());
    for (what, model) in &graphs {
        println!("{what}");
        alike(&features(model.to_bytes()), &expected, 0.99999);
        // Said or not, it is done once; and so it stays when a fitted model loads its backbone with its recipe.
        let said = load(model.to_bytes(), Some(InputRecipe::torch())).unwrap();
        alike(&said.features(&picture(3)).unwrap(), &expected, 0.99999);
        assert_eq!(said.input().name(), "torch", "{what}");
        let again = load(model.to_bytes(), Some(said.input().clone())).unwrap();
        assert_eq!(again.input(), said.input());
        assert!(said.describe().iter().any(|line| line.contains("the file's own")), "{:?}", said.describe());
        alike(&features(quantized(model.to_bytes())), &expected, 0.998);
    }
    // In 8 bits, constants and the steps between rounded too, as quantizers write it.
    let mut model = read(&quantized(small().to_bytes()));
    model.metadata.clear();
    let byte = |name: &str, v: u8| Initializer::u8(name, &[], &[v]);
    let real = |name: &str, v: f32| Initializer::f32(name, &[], &[v]);
    model.initializers.extend([real("s", 1.0), byte("z", 0), byte("dz", 128)]);
    model.initializers.extend([real("ms", 0.5), Initializer::u8("levels", &[1, 3, 1, 1], &[247, 233, 207])]);
    model.initializers.extend([real("ks", 0.0001), Initializer::u8("shares", &[1, 3, 1, 1], &[171, 175, 174])]);
    for input in model.nodes.iter_mut().flat_map(|n| &mut n.inputs).filter(|i| *i == "input") {
        *input = "pre".into();
    }
    let (q, d) = ("QuantizeLinear", "DequantizeLinear");
    let nodes = [
        Node::new(q, &["input", "s", "z"], &["q0"]),
        Node::new(d, &["q0", "s", "z"], &["d0"]),
        Node::new(d, &["levels", "ms", "z"], &["mean"]),
        Node::new(d, &["shares", "ks", "z"], &["share"]),
        Node::new("Sub", &["d0", "mean"], &["centred"]),
        Node::new(q, &["centred", "s", "dz"], &["q1"]),
        Node::new(d, &["q1", "s", "dz"], &["d1"]),
        Node::new("Mul", &["d1", "share"], &["pre"]),
    ];
    model.nodes.splice(0..0, nodes);
    let backbone = load(model.to_bytes(), None).unwrap();
    assert!(backbone.fusion().is_whole(), "{:?}", backbone.fusion());
    alike(&backbone.features(&picture(3)).unwrap(), &expected, 0.99);
    // Levels as integers.
    let mut model = prepared(before, vec![last("mean", MEAN), last("std", STD)], true);
    model.nodes[0].inputs[0] = "real".into();
    model.nodes.insert(0, Node::new("Cast", &["input"], &["real"]).with("to", Attr::Int(1)));
    model.inputs[0].dtype = DType::U8;
    alike(&features(model.to_bytes()), &expected, 0.99999);
}

#[test]
fn other_normalisations_and_orders_of_channels() {
    // From -1 to 1, as Keras' ResNetV2: the recipe is in the quantized file too.
    let nodes = || vec![Node::new("Mul", &["input", "k"], &["m"]), Node::new("Sub", &["m", "one"], &["pre"])];
    let one = |k: f32| vec![Initializer::f32("k", &[], &[k]), Initializer::f32("one", &[], &[1.0])];
    let recipe = InputRecipe { mean: [127.5; 3], std: [127.5; 3], ..InputRecipe::torch() };
    let expected = load(small().to_bytes(), Some(recipe)).unwrap().features(&picture(3)).unwrap();
    for k in [1.0 / 127.5, 2.0] {
        let model = prepared(nodes(), one(k), false);
        alike(&features(model.to_bytes()), &expected, 0.99999);
        let int8 = load(quantized(model.to_bytes()), None).unwrap();
        assert!((int8.input().mean[0] - 127.5).abs() < 0.01 && int8.input().name() == "custom", "{:?}", int8.input());
        alike(&int8.features(&picture(3)).unwrap(), &expected, 0.998);
    }
    // Caffe's means tell BGR, in whichever order the graph takes the channels.
    let expected = load(small().to_bytes(), Some(InputRecipe::caffe())).unwrap().features(&picture(3)).unwrap();
    let means = first("mean", InputRecipe::caffe().mean);
    let sub = Node::new("Sub", &["input", "mean"], &["pre"]);
    alike(&features(prepared(vec![sub], vec![means.clone()], false).to_bytes()), &expected, 0.99999);
    let flip = Node::new("Gather", &["input", "order"], &["bgr"]).with("axis", Attr::Int(1));
    let nodes = vec![flip, Node::new("Sub", &["bgr", "mean"], &["pre"])];
    let flipped = prepared(nodes, vec![means, Initializer::i64("order", &[3], &[2, 1, 0])], false);
    let backbone = load(flipped.to_bytes(), None).unwrap();
    assert_eq!(backbone.input().order, ChannelOrder::Bgr);
    alike(&backbone.features(&picture(3)).unwrap(), &expected, 0.99999);
}

#[test]
fn what_is_no_normalisation_is_a_layer_or_refused() {
    // A batch norm that was learnt behind a normalisation is a layer.
    let row = |name: &str, values: [f32; 3]| Initializer::f32(name, &[3], &values);
    let constants = vec![
        row("g", [1.1, 0.9, 1.0]),
        row("b", [0.1, 0.0, -0.1]),
        row("m", [0.02, -0.03, 0.1]),
        row("v", [1.2, 1.0, 0.8]),
    ];
    let node = Node::new("BatchNormalization", &["input", "g", "b", "m", "v"], &["pre"]);
    let learnt = load(prepared(vec![node], constants, false).to_bytes(), None).unwrap();
    assert_eq!(learnt.input().name(), "torch");
    assert!(learnt.fusion().in_float.iter().any(|(op, _)| op == "BatchNormalization"));
    // Other arithmetic needs a word, and is then run as it is.
    let odd = || {
        let far = Initializer::f32("far", &[], &[-700.0]);
        prepared(vec![Node::new("Sub", &["input", "far"], &["pre"])], vec![far], false).to_bytes()
    };
    refused(odd(), &["Sub \"pre\"", "--input", "raw", "unit"]);
    let told = load(odd(), Some(InputRecipe::raw())).unwrap();
    let shifted = InputRecipe { mean: [-700.0; 3], ..InputRecipe::raw() };
    let expected = load(small().to_bytes(), Some(shifted)).unwrap();
    alike(&told.features(&picture(3)).unwrap(), &expected.features(&picture(3)).unwrap(), 0.99999);
}
