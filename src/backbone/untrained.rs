//! A ResNet-50 with untrained, seeded weights, as an ONNX model of our own: for the demo and for tests.
//!
//! Weights are He-normal; batch norm is folded away by halving the last convolution of each block, so that the sums
//! grow slowly. It is the v1.5 topology (stride in the 3 x 3).

use std::f64::consts::TAU;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::onnx::writer::{Dim, Initializer, Io, Model};
use super::onnx::{Attr, DType, Node};
use super::options::INPUT_KEY;

/// Sizes of the network.
#[derive(Debug, Clone, PartialEq)]
pub struct Params {
    pub seed: u64,
    /// Channels behind the first convolution; ResNet-50 has 64.
    pub width: usize,
    /// Height and width of the input in pixels.
    pub size: usize,
    /// Blocks per stage.
    pub blocks: Vec<usize>,
}

impl Default for Params {
    /// A quarter of ResNet-50's width, 112 pixels.
    fn default() -> Self {
        Params { seed: 50, width: 16, size: 112, blocks: vec![3, 4, 6, 3] }
    }
}

struct Writer {
    rng: ChaCha8Rng,
    nodes: Vec<Node>,
    initializers: Vec<Initializer>,
}

impl Writer {
    fn uniform(&mut self) -> f64 {
        ((self.rng.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Standard normal values by Box and Muller's method.
    fn normal(&mut self, n: usize) -> Vec<f64> {
        let mut values = Vec::with_capacity(n + 1);
        while values.len() < n {
            let radius = (-2.0 * self.uniform().ln()).sqrt();
            let angle = TAU * self.uniform();
            values.extend([radius * angle.cos(), radius * angle.sin()]);
        }
        values.truncate(n);
        values
    }

    fn conv(&mut self, name: &str, x: &str, [out_c, in_c, kernel, stride]: [usize; 4], gain: f64) -> String {
        let fan_in = in_c * kernel * kernel;
        let spread = gain * (2.0 / fan_in as f64).sqrt();
        let weights: Vec<f32> = self.normal(out_c * fan_in).into_iter().map(|v| (v * spread) as f32).collect();
        let bias: Vec<f32> = self.normal(out_c).into_iter().map(|v| (v * 0.05 * gain) as f32).collect();
        let (w, b) = (format!("{name}.weight"), format!("{name}.bias"));
        self.initializers.push(Initializer::f32(&w, &[out_c, in_c, kernel, kernel], &weights));
        self.initializers.push(Initializer::f32(&b, &[out_c], &bias));
        let pair = |v: usize| Attr::Ints(vec![v as i64; 2]);
        let pads = Attr::Ints(vec![(kernel / 2) as i64; 4]);
        let node = Node::new("Conv", &[x, &w, &b], &[name]);
        self.nodes.push(node.with("kernel_shape", pair(kernel)).with("strides", pair(stride)).with("pads", pads));
        name.into()
    }

    fn op(&mut self, op: &str, inputs: &[&str], output: &str) -> String {
        self.nodes.push(Node::new(op, inputs, &[output]));
        output.into()
    }
}

/// The model: input `input` [N, 3, size, size], output `features` [N, 32 width] (average pool of the last stage).
pub fn resnet50(params: &Params) -> Model {
    let Params { seed, width, size, ref blocks } = *params;
    let mut w = Writer { rng: ChaCha8Rng::seed_from_u64(seed), nodes: Vec::new(), initializers: Vec::new() };
    let x = w.conv("conv1", "input", [width, 3, 7, 2], 1.0);
    let x = w.op("Relu", &[&x], "relu1");
    let pool = Node::new("MaxPool", &[&x], &["pool1"]).with("kernel_shape", Attr::Ints(vec![3; 2]));
    w.nodes.push(pool.with("strides", Attr::Ints(vec![2; 2])).with("pads", Attr::Ints(vec![1; 4])));
    let (mut x, mut in_c) = ("pool1".to_string(), width);
    for (stage, &n) in blocks.iter().enumerate() {
        let inner = width << stage;
        for block in 0..n {
            let name = format!("layer{}.{block}", stage + 1);
            let stride = if block == 0 && stage > 0 { 2 } else { 1 };
            let a = w.conv(&format!("{name}.conv1"), &x, [inner, in_c, 1, 1], 1.0);
            let a = w.op("Relu", &[&a], &format!("{name}.relu1"));
            let b = w.conv(&format!("{name}.conv2"), &a, [inner, inner, 3, stride], 1.0);
            let b = w.op("Relu", &[&b], &format!("{name}.relu2"));
            let c = w.conv(&format!("{name}.conv3"), &b, [4 * inner, inner, 1, 1], 0.5);
            let shortcut = match block {
                0 => w.conv(&format!("{name}.downsample"), &x, [4 * inner, in_c, 1, stride], 1.0),
                _ => x,
            };
            let sum = w.op("Add", &[&c, &shortcut], &format!("{name}.sum"));
            x = w.op("Relu", &[&sum], &format!("{name}.relu3"));
            in_c = 4 * inner;
        }
    }
    let x = w.op("GlobalAveragePool", &[&x], "pooled");
    w.nodes.push(Node::new("Flatten", &[&x], &["features"]).with("axis", Attr::Int(1)));
    let batch = || Dim::Named("N".into());
    let picture = [3, size, size].map(Dim::Fixed);
    Model {
        name: "resnet50-untrained".into(),
        opsets: vec![(String::new(), 13)],
        metadata: vec![(INPUT_KEY.into(), "torch".into())],
        nodes: w.nodes,
        initializers: w.initializers,
        inputs: vec![Io {
            name: "input".into(),
            dtype: DType::F32,
            dims: [batch()].into_iter().chain(picture).collect(),
        }],
        outputs: vec![Io { name: "features".into(), dtype: DType::F32, dims: vec![batch(), Dim::Fixed(in_c)] }],
    }
}
