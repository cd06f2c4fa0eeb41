//! The picture among a graph's inputs, and what the graph itself does to it first: an NHWC layout, a normalisation.
//!
//! A normalisation of pixels goes out of the graph and into the recipe, so that it is done once and, in 8 bits, by table.

use std::collections::HashSet;

use super::affine::{Affine, Layout, affine};
use super::quant::dequantized;
use crate::backbone::error::Error;
use crate::backbone::onnx::{DType, Graph, Index, Model, Node};
use crate::backbone::options::{INPUT_KEY, Options};
use crate::image::{ChannelOrder, InputRecipe};

/// The largest side of a network's input.
const MAX_INPUT: u32 = 2048;

/// Steps in front of a network that are looked at.
const MAX_STEPS: usize = 16;

/// Operators that normalise.
const ARITHMETIC: [&str; 5] = ["Add", "BatchNormalization", "Div", "Mul", "Sub"];

/// The permutations from NHWC to NCHW, and back.
const TO_FIRST: [i64; 4] = [0, 3, 1, 2];
const TO_LAST: [i64; 4] = [0, 2, 3, 1];

/// The picture of a graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// Its name.
    pub name: String,
    pub recipe: InputRecipe,
    /// The levels of a channel that the graph itself normalised; None where it does not.
    pub own: Option<Range>,
}

/// The levels of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// 0 to 255.
    Raw,
    /// 0 to 1.
    Unit,
}

/// Finds the picture of a lowered graph, takes the layout and the normalisation in front out of the graph and says how a
/// picture enters what is left.
///
/// # Errors
/// There is no picture of 3 channels and a supported size, or the graph begins with arithmetic of unknown meaning.
pub fn take(model: &Model, graph: &mut Graph, options: &Options) -> Result<Picture, Error> {
    let unsupported = |reason: String| model.unsupported(reason);
    let unknown = |name: &str| Error::UnknownRecipe { path: model.path.clone(), name: name.into() };
    let declared = match (&options.input, model.metadata(INPUT_KEY)) {
        (Some(recipe), _) => Some(recipe.clone()),
        (None, Some(name)) => Some(from_mark(name).ok_or_else(|| unknown(name))?),
        (None, None) => None,
    };
    let mut pictures = graph.inputs.iter().filter(|i| graph.inputs.len() == 1 || i.dims.len() == 4);
    let (Some(input), None) = (pictures.next(), pictures.next()) else {
        let names: Vec<&str> = graph.inputs.iter().map(|i| i.name.as_str()).collect();
        return Err(unsupported(format!("it has the inputs {names:?}; export it with one picture as its only input")));
    };
    let mut input = input.clone();
    let Ok(mut dims) = <[Option<usize>; 4]>::try_from(input.dims.as_slice()) else {
        return Err(unsupported(format!("its input has {} dimensions; export it with N, C, H, W", input.dims.len())));
    };
    let front = Preprocessing::of(model, graph, &input.name, dims)?;
    if front.channels_last {
        dims = TO_FIRST.map(|i| dims[i as usize]);
    }
    let [_, channels, height, width] = dims;
    let levels = input.dtype == Some(DType::U8);
    if channels.is_some_and(|c| c != 3) || !(levels || input.dtype == Some(DType::F32)) {
        return Err(unsupported("its input is no picture of 3 channels in f32 or u8".into()));
    }
    let range = if levels { Some(Range::Raw) } else { front.normalisation.range() };
    let (left, own, recipe) = match (front.normalised, range) {
        (None, _) if levels => (front.plain, None, Normalisation::default().recipe(Range::Raw, declared)),
        (None, _) => (front.plain, None, declared.unwrap_or_else(InputRecipe::torch)),
        (Some(left), Some(range)) => (left, Some(range), front.normalisation.recipe(range, declared)),
        (Some(left), None) if front.normalisation.is_none() => {
            (left, None, front.normalisation.ordered(declared.unwrap_or_else(InputRecipe::torch)))
        }
        (Some(_), None) if front.normalisation.learnt || declared.is_some() => {
            (front.plain, None, declared.unwrap_or_else(InputRecipe::torch))
        }
        (Some(_), None) => {
            let reason = format!(
                "its graph begins with {}, which is no known normalisation of pictures; say with --input what the \
                 graph takes: raw (0 to 255), unit (0 to 1), torch or caffe",
                front.first
            );
            return Err(unsupported(reason));
        }
    };
    *graph = left;
    (input.dtype, input.dims) = (Some(DType::F32), dims.into());
    graph.inputs.iter_mut().filter(|i| i.name == input.name).for_each(|i| *i = input.clone());
    let side = |fixed: Option<usize>, own: u32| fixed.map_or(Ok(own), u32::try_from);
    let sizes = side(width, recipe.width).ok().zip(side(height, recipe.height).ok());
    let Some((width, height)) = sizes.filter(|&(w, h)| w.max(h) <= MAX_INPUT && w.min(h) > 0) else {
        return Err(unsupported(format!("its input is larger than {MAX_INPUT} pixels a side")));
    };
    let recipe =
        if (width, height) == (recipe.width, recipe.height) { recipe } else { recipe.with_size(width, height) };
    let recipe = match options.resize {
        Some(resize) => recipe.with_resize(resize),
        None => recipe,
    };
    Ok(Picture { name: input.name, recipe, own })
}

/// What a graph does to its picture before anything else.
struct Preprocessing {
    /// The graph without a change of layout in front.
    plain: Graph,
    /// The graph without the normalisation either; None where there is none.
    normalised: Option<Graph>,
    normalisation: Normalisation,
    /// The first node of the normalisation.
    first: String,
    /// Whether the input is NHWC, and a change to NCHW was taken out.
    channels_last: bool,
}

/// Arithmetic on each channel of the picture, in the order of the channels behind it.
#[derive(Debug, Clone, PartialEq)]
struct Normalisation {
    scale: [f64; 3],
    shift: [f64; 3],
    /// Whether the channels change their order.
    reversed: bool,
    /// Whether it is a batch norm alone, which may be a layer that was learnt.
    learnt: bool,
}

impl Default for Normalisation {
    fn default() -> Self {
        Normalisation { scale: [1.0; 3], shift: [0.0; 3], reversed: false, learnt: true }
    }
}

impl Preprocessing {
    fn of(model: &Model, graph: &Graph, input: &str, dims: [Option<usize>; 4]) -> Result<Preprocessing, Error> {
        let to_first = |n: &Node| n.is("Transpose") && n.ints("perm") == Some(&TO_FIRST);
        let unknown = dims[1..].iter().all(Option::is_none) && graph.nodes.iter().any(to_first);
        let channels_last = unknown || dims[3] == Some(3) && dims[1] != Some(3);
        let mut layout = if channels_last { Layout::ChannelsLast } else { Layout::ChannelsFirst };
        let mut front = Preprocessing {
            plain: graph.clone(),
            normalised: None,
            normalisation: Normalisation::default(),
            first: String::new(),
            channels_last: false,
        };
        let mut rest = graph.clone();
        let mut so_far: Option<Normalisation> = None;
        for _ in 0..MAX_STEPS {
            let Some(node) = consumer(&rest, input).cloned() else { break };
            let node = &node;
            // Of a quantized file the constants of arithmetic may be 8 bits.
            for value in node.inputs.iter().filter(|v| ARITHMETIC.iter().any(|op| node.is(op)) && *v != input) {
                if let Some(real) = dequantized(model, &rest, value)? {
                    rest.constants.insert(value.clone(), real);
                }
            }
            let is_rounding = node.is("QuantizeLinear") || node.is("DequantizeLinear");
            let step = affine(model, &rest, node, layout)?.and_then(|(_, step)| of_three(step));
            let mut own = so_far.clone().unwrap_or_default();
            if layout == Layout::ChannelsLast && to_first(node) {
                layout = Layout::ChannelsFirst;
            } else if layout == Layout::ChannelsFirst && node.is("Transpose") && node.ints("perm") == Some(&TO_LAST) {
                layout = Layout::ChannelsLast;
            } else if let Some((scale, shift)) = step {
                own.scale = std::array::from_fn(|c| own.scale[c] * scale[c]);
                own.shift = std::array::from_fn(|c| own.shift[c] * scale[c] + shift[c]);
                own.learnt &= node.is("BatchNormalization");
                front.first = if front.first.is_empty() { node.label() } else { front.first };
                so_far = Some(own);
            } else if reverses(model, &rest, node, layout)? {
                own.scale.reverse();
                own.shift.reverse();
                own.reversed = !own.reversed;
                so_far = Some(own);
            } else if !is_rounding {
                break;
            }
            rest = without(&rest, input);
            // A rounding goes only with a normalisation behind it.
            if layout == Layout::ChannelsFirst && !is_rounding {
                front.channels_last = channels_last;
                match &so_far {
                    None => front.plain = rest.clone(),
                    Some(own) => (front.normalised, front.normalisation) = (Some(rest.clone()), own.clone()),
                }
            }
        }
        Ok(front)
    }
}

/// The node that reads a value; the first of several that compute the same.
fn consumer<'g>(graph: &'g Graph, value: &str) -> Option<&'g Node> {
    let index = Index::of(graph);
    let mut nodes = index.consumers(value).iter().map(|&at| &graph.nodes[at]);
    let first = nodes.next().filter(|_| !index.is_output(value))?;
    let same =
        |n: &Node| (&n.op, &n.domain, &n.inputs, &n.attrs) == (&first.op, &first.domain, &first.inputs, &first.attrs);
    (first.outputs.len() == 1 && nodes.all(same)).then_some(first)
}

/// The graph without the readers of a value, which stands for what they made.
fn without(graph: &Graph, value: &str) -> Graph {
    let mut left = graph.clone();
    let read = |n: &Node| n.inputs.iter().any(|i| i == value);
    let made: HashSet<String> =
        graph.nodes.iter().filter(|n| read(n)).flat_map(|n| n.outputs.iter().cloned()).collect();
    left.nodes.retain(|n| !read(n));
    for input in left.nodes.iter_mut().flat_map(|n| &mut n.inputs).filter(|i| made.contains(i.as_str())) {
        *input = value.into();
    }
    left
}

fn of_three(step: Affine) -> Option<([f64; 3], [f64; 3])> {
    let three = |list: Vec<f64>| match list[..] {
        [all] => Some([all; 3]),
        _ => <[f64; 3]>::try_from(list).ok(),
    };
    Some((three(step.scale)?, three(step.shift)?))
}

/// Whether a node puts the three channels into the opposite order.
fn reverses(model: &Model, graph: &Graph, node: &Node, layout: Layout) -> Result<bool, Error> {
    let constant = |i: usize| node.input(i).and_then(|name| graph.constants.get(name)).filter(|t| t.len() <= 3);
    let is_channels = |axis: i32| match layout {
        Layout::ChannelsFirst => axis == 1 || axis == -3,
        Layout::ChannelsLast => axis == 3 || axis == -1,
    };
    if node.is("Gather") && is_channels(node.int("axis").unwrap_or(0) as i32) {
        return Ok(constant(1).map(|t| model.read_i32(t)).transpose()?.is_some_and(|list| list == [2, 1, 0]));
    }
    let lists: Option<Vec<_>> = (1..5).map(constant).collect();
    let Some(lists) = lists.filter(|_| node.is("Slice")) else { return Ok(false) };
    let lists = lists.into_iter().map(|t| model.read_i32(t)).collect::<Result<Vec<_>, _>>()?;
    let [starts, ends, axes, steps] = &lists[..] else { return Ok(false) };
    let whole = matches!((&starts[..], &ends[..]), ([-1 | 2..], [..=-4]));
    Ok(whole && steps[..] == [-1] && matches!(axes[..], [axis] if is_channels(axis)))
}

impl Normalisation {
    /// Whether no value changes.
    fn is_none(&self) -> bool {
        (self.scale, self.shift) == ([1.0; 3], [0.0; 3])
    }

    /// The levels that it is meant for: those that it brings around zero, or to a range of 1 or 2.
    fn range(&self) -> Option<Range> {
        let means: [f64; 3] = std::array::from_fn(|c| -self.shift[c] / self.scale[c]);
        let all = |list: [f64; 3], lo: f64, hi: f64| list.iter().all(|v| (lo..=hi).contains(v));
        let zeros = self.shift == [0.0; 3];
        let raw = all(means, 25.0, 230.0) && all(self.scale, 1.0 / 300.0, 2.0);
        if raw || zeros && all(self.scale, 1.0 / 300.0, 0.03) {
            return Some(Range::Raw);
        }
        // A layer that was learnt behind a normalisation scales by about 1.
        let least = if self.learnt { 1.9 } else { 0.5 };
        let unit = all(means, 0.1, 0.9) && all(self.scale, least, 300.0);
        (unit || zeros && all(self.scale, 100.0, 300.0)).then_some(Range::Unit)
    }

    /// The recipe of what lies behind it; `declared` is that of what lies in front.
    fn ordered(&self, declared: InputRecipe) -> InputRecipe {
        let InputRecipe { mut mean, mut std, mut order, .. } = declared;
        if self.reversed {
            mean.reverse();
            std.reverse();
            order = match order {
                ChannelOrder::Rgb => ChannelOrder::Bgr,
                ChannelOrder::Bgr => ChannelOrder::Rgb,
            };
        }
        InputRecipe { mean, std, order, ..declared }
    }

    /// The recipe that does the same to a picture; geometry, and an order of channels that the means do not tell, are
    /// those of `declared`.
    fn recipe(&self, range: Range, declared: Option<InputRecipe>) -> InputRecipe {
        let levels = if range == Range::Raw { 1.0 } else { 255.0 };
        let mean: [f32; 3] = std::array::from_fn(|c| (0.0 - self.shift[c] / self.scale[c] * levels) as f32);
        let std: [f32; 3] = std::array::from_fn(|c| (levels / self.scale[c]) as f32);
        let near = |known: &InputRecipe| {
            let means = known.mean.iter().zip(&mean).all(|(a, b)| (a - b).abs() < 0.02);
            means && known.std.iter().zip(&std).all(|(a, b)| (b / a - 1.0).abs() < 1e-3)
        };
        let known = [InputRecipe::torch(), InputRecipe::caffe()].into_iter().find(near);
        if let (Some(known), None) = (&known, &declared) {
            return known.clone();
        }
        let base = self.ordered(declared.unwrap_or_else(InputRecipe::torch));
        // ImageNet's means tell the channels apart.
        let means = |wanted: [f32; 3]| wanted.iter().zip(&mean).all(|(a, b)| (a - b).abs() < 2.0);
        let order = match mean {
            _ if means([123.7, 116.5, 103.7]) => ChannelOrder::Rgb,
            _ if means([103.7, 116.5, 123.7]) => ChannelOrder::Bgr,
            _ => base.order,
        };
        let (mean, std) = known.map_or((mean, std), |known| (known.mean, known.std));
        InputRecipe { order, mean, std, ..base }
    }
}

/// The text of [`INPUT_KEY`] for a recipe: its name, else order, means and scales.
pub fn mark(recipe: &InputRecipe) -> String {
    if InputRecipe::by_name(recipe.name()).is_some() {
        return recipe.name().into();
    }
    let order = if recipe.order == ChannelOrder::Rgb { "rgb" } else { "bgr" };
    let list = |values: [f32; 3]| values.map(|v| v.to_string()).join(" ");
    format!("{order} {} / {}", list(recipe.mean), list(recipe.std))
}

fn from_mark(mark: &str) -> Option<InputRecipe> {
    if let Some(known) = InputRecipe::by_name(mark) {
        return Some(known);
    }
    let order = match mark.get(..4)? {
        "rgb " => ChannelOrder::Rgb,
        "bgr " => ChannelOrder::Bgr,
        _ => return None,
    };
    let list = |text: &str| -> Option<[f32; 3]> {
        let values: Option<Vec<f32>> = text.split_whitespace().map(|v| v.parse().ok()).collect();
        values?.try_into().ok().filter(|values: &[f32; 3]| values.iter().all(|v| v.is_finite()))
    };
    let (mean, std) = mark[4..].split_once('/')?;
    let std = list(std).filter(|std| std.iter().all(|s| *s > 0.0))?;
    Some(InputRecipe { order, mean: list(mean)?, std, ..InputRecipe::torch() })
}
