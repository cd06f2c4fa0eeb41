//! What became of a network's operators, for people.

use super::plan::{Plan, Step};
use crate::backbone::passes::lower::Format;

/// Which part of a network is fused into int8 operators and which part runs as tract runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fusion {
    /// float, QDQ or QOperator.
    pub format: &'static str,
    /// Fused convolutions; of these with their residual sum.
    pub convolutions: usize,
    pub sums: usize,
    pub max_pools: usize,
    /// Operators that tract runs, in float, with their number.
    pub in_float: Vec<(String, usize)>,
    /// Float maps that are rounded for the int8 operators: transitions out of what tract runs.
    pub roundings: usize,
}

impl Fusion {
    pub(super) fn of(plan: &Plan, format: Format) -> Fusion {
        let count = |is: fn(&Step) -> bool| plan.steps.iter().filter(|s| is(s)).count();
        let mut in_float: Vec<(String, usize)> = Vec::new();
        for step in &plan.steps {
            let Step::Fallback(nodes) = step else { continue };
            for node in nodes {
                match in_float.iter_mut().find(|(op, _)| *op == node.op) {
                    Some((_, n)) => *n += 1,
                    None => in_float.push((node.op.clone(), 1)),
                }
            }
        }
        Fusion {
            format: format.name(),
            convolutions: count(|s| matches!(s, Step::Conv(_))),
            sums: count(|s| matches!(s, Step::Conv(c) if c.sum.is_some())),
            max_pools: count(|s| matches!(s, Step::MaxPool { .. })),
            in_float,
            roundings: count(|s| matches!(s, Step::Quantize { .. })),
        }
    }

    /// Whether everything from the picture to the tap runs in fused int8 operators.
    pub fn is_whole(&self) -> bool {
        self.convolutions > 0 && self.in_float.is_empty() && self.roundings == 0
    }

    /// Lines for people.
    pub fn describe(&self) -> Vec<String> {
        let Fusion { format, convolutions, sums, max_pools, in_float, roundings } = self;
        let mut lines = vec![format!("format: {format}")];
        if convolutions + max_pools > 0 {
            lines.push(format!(
                "fused int8: {convolutions} convolutions ({sums} with their residual sum), {max_pools} max pools"
            ));
        }
        if in_float.is_empty() {
            lines.push("as tract runs it: nothing".into());
        } else {
            let list: Vec<String> = in_float.iter().map(|(op, n)| format!("{n} {op}")).collect();
            lines.push(format!("as tract runs it, in float: {}", list.join(", ")));
        }
        if *roundings > 0 {
            lines.push(format!("rounded from float to int8: {roundings} maps"));
        }
        lines
    }
}
