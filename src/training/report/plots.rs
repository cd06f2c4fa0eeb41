//! The report's plots as inline SVG.

use std::fmt::Write;

use super::case::Case;
use crate::training::metrics::{Confusion, Step};

const SIDE: f64 = 320.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 42.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 34.0;

fn x(share: f64) -> f64 {
    LEFT + share * (SIDE - LEFT - RIGHT)
}

fn y(share: f64) -> f64 {
    HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
}

/// An empty plot over [0, 1] x [0, 1] with ticks and axis names.
fn unit_plot(x_name: &str, y_name: &str, body: &str) -> String {
    let mut svg = String::new();
    for tick in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let _ = write!(
            svg,
            "<path class=\"axis\" d=\"M{:.1} {:.1}H{:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{tick}</text>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{tick}</text>",
            x(0.0),
            y(tick),
            x(1.0),
            x(0.0) - 5.0,
            y(tick) + 4.0,
            x(tick),
            y(0.0) + 14.0
        );
    }
    frame(&svg, x_name, y_name, body)
}

fn frame(axes: &str, x_name: &str, y_name: &str, body: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 {SIDE} {HEIGHT}\" role=\"img\" aria-label=\"{y_name} against {x_name}\">{axes}{body}\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{x_name}</text>\
         <text transform=\"translate(12 {:.1}) rotate(-90)\" text-anchor=\"middle\">{y_name}</text></svg>",
        x(0.5),
        HEIGHT - 5.0,
        y(0.5)
    )
}

fn path(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut d = String::from("<path class=\"curve\" d=\"");
    for (i, (px, py)) in points.enumerate() {
        let _ = write!(d, "{}{:.2} {:.2}", if i == 0 { 'M' } else { 'L' }, x(px), y(py));
    }
    d.push_str("\"/>");
    d
}

fn dot(px: f64, py: f64, radius: f64) -> String {
    format!("<circle class=\"dot\" cx=\"{:.2}\" cy=\"{:.2}\" r=\"{radius:.1}\"/>", x(px), y(py))
}

pub fn roc(steps: &[Step], confusion: &Confusion) -> String {
    let Some(last) = steps.last() else { return String::new() };
    let (n_in, n_out) = (last.inliers.max(1) as f64, last.outliers.max(1) as f64);
    let points = steps.iter().map(|s| (s.inliers as f64 / n_in, s.outliers as f64 / n_out));
    let chance = format!("<path class=\"chance\" d=\"M{:.1} {:.1}L{:.1} {:.1}\"/>", x(0.0), y(0.0), x(1.0), y(1.0));
    let at = dot(confusion.false_outlier as f64 / n_in, confusion.true_outlier as f64 / n_out, 5.0);
    let curve = path(std::iter::once((0.0, 0.0)).chain(points));
    unit_plot("false alarms", "outliers caught", &(chance + &curve + &at))
}

pub fn precision_recall(steps: &[Step], confusion: &Confusion) -> String {
    let Some(last) = steps.last() else { return String::new() };
    let n_out = last.outliers.max(1) as f64;
    let point = |s: &Step| (s.outliers as f64 / n_out, s.outliers as f64 / (s.outliers + s.inliers).max(1) as f64);
    let called = confusion.true_outlier + confusion.false_outlier;
    let at = if called > 0 {
        dot(confusion.true_outlier as f64 / n_out, confusion.true_outlier as f64 / called as f64, 5.0)
    } else {
        String::new()
    };
    unit_plot("recall", "precision", &(path(steps.iter().map(point)) + &at))
}

/// Halfway between the highest score called an outlier and the lowest that was not; None if all are called alike.
pub fn score_threshold(cases: &[Case]) -> Option<f64> {
    let scores = |called: bool| cases.iter().filter(move |c| c.verdict.outlier == called).map(|c| c.verdict.score);
    let below = scores(true).max_by(f64::total_cmp)?;
    let above = scores(false).min_by(f64::total_cmp)?;
    Some((below + above) / 2.0)
}

/// A number of at least five digits, fewer where the rest are zeros.
pub fn brief(value: f64) -> String {
    let whole = value.abs().max(1.0).log10().floor() as usize + 1;
    let text = format!("{value:.*}", 5_usize.saturating_sub(whole));
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// The scores that the histogram spans: all, but no more than three widths of the inliers below them, and without the
/// lowest 1 %. Lower ones share the first bar: a few far outliers would press all others into the last.
fn score_range(inliers: &[f64], outliers: &[f64]) -> Option<(f64, f64)> {
    let mut all: Vec<f64> = inliers.iter().chain(outliers).copied().collect();
    all.sort_by(f64::total_cmp);
    let (high, mut low) = (*all.last()?, *all.get(all.len() / 100)?);
    let first = inliers.iter().copied().min_by(f64::total_cmp);
    let last = inliers.iter().copied().max_by(f64::total_cmp);
    if let (Some(first), Some(last)) = (first, last)
        && last > first
    {
        low = low.max(first - 3.0 * (last - first)).min(first);
    }
    Some((low, if high > low { high } else { low + 1.0 }))
}

/// Counts of both classes by score, stacked.
pub fn histogram(inliers: &[f64], outliers: &[f64], threshold: Option<f64>) -> String {
    const BARS: usize = 32;
    let Some((low, high)) = score_range(inliers, outliers) else { return String::new() };
    let span = high - low;
    let bar = |score: f64| ((((score - low) / span) * BARS as f64).max(0.0) as usize).min(BARS - 1);
    let count = |scores: &[f64]| {
        let mut counts = [0_u32; BARS];
        scores.iter().for_each(|&s| counts[bar(s)] += 1);
        counts
    };
    let (ins, outs) = (count(inliers), count(outliers));
    let top = f64::from(ins.iter().zip(&outs).map(|(a, b)| a + b).max().unwrap_or(1).max(1));
    let mut body = String::new();
    let width = (x(1.0) - x(0.0)) / BARS as f64;
    for at in 0..BARS {
        let left = x(at as f64 / BARS as f64) + 0.5;
        let mut rect = |class: &str, from: f64, n: u32| {
            if n > 0 {
                let (bottom, upper) = (y(from / top), y((from + f64::from(n)) / top));
                let _ = write!(
                    body,
                    "<rect class=\"{class}\" x=\"{left:.2}\" y=\"{upper:.2}\" width=\"{:.2}\" height=\"{:.2}\"/>",
                    width - 1.0,
                    bottom - upper
                );
            }
        };
        rect("bar-in", 0.0, ins[at]);
        rect("bar-out", f64::from(ins[at]), outs[at]);
    }
    if let Some(threshold) = threshold {
        let share = ((threshold - low) / span).clamp(0.0, 1.0);
        let _ = write!(body, "<path class=\"cut\" d=\"M{:.2} {:.1}V{:.1}\"/>", x(share), y(0.0), TOP);
    }
    let mut axes = String::new();
    let lower = inliers.iter().chain(outliers).any(|s| *s < low);
    for (share, anchor, sign) in
        [(0.0, "start", if lower { "\u{2264} " } else { "" }), (0.5, "middle", ""), (1.0, "end", "")]
    {
        let _ = write!(
            axes,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{sign}{}</text>",
            x(share),
            y(0.0) + 14.0,
            brief(low + share * span)
        );
    }
    for count in [0.0, (top / 2.0).floor(), top] {
        let height = y(count / top);
        let _ = write!(
            axes,
            "<path class=\"axis\" d=\"M{:.1} {height:.1}H{:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{count}</text>",
            x(0.0),
            x(1.0),
            x(0.0) - 5.0,
            height + 4.0
        );
    }
    frame(&axes, "score", "pictures", &body)
}

/// Mean p against the share of inliers, in ten bins of p.
pub fn reliability(cases: &[Case]) -> String {
    let mut bins = [(0_u32, 0_u32, 0.0_f64); 10];
    for case in cases {
        let bin = &mut bins[((case.verdict.p * 10.0) as usize).min(9)];
        bin.0 += 1;
        bin.1 += u32::from(!case.outlier);
        bin.2 += case.verdict.p;
    }
    let mut body = format!("<path class=\"chance\" d=\"M{:.1} {:.1}L{:.1} {:.1}\"/>", x(0.0), y(0.0), x(1.0), y(1.0));
    for (n, inliers, sum) in bins.into_iter().filter(|bin| bin.0 > 0) {
        let n = f64::from(n);
        let radius = 3.0 + 7.0 * (n / cases.len().max(1) as f64).sqrt();
        body += &dot(sum / n, f64::from(inliers) / n, radius);
    }
    unit_plot("p", "share of inliers", &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_five_digits() {
        for (value, text) in
            [(-13383.78, "-13384"), (-367.0068, "-367.01"), (0.5, "0.5"), (-0.00012, "-0.0001"), (0.0, "0")]
        {
            assert_eq!(brief(value), text);
        }
    }

    #[test]
    fn far_outliers_do_not_squeeze_the_inliers() {
        let inliers: Vec<f64> = (0..100).map(f64::from).collect();
        let outliers: Vec<f64> = (0..50).map(|i| -1000.0 * f64::from(i)).collect();
        assert_eq!(score_range(&inliers, &outliers), Some((-297.0, 99.0)));
        assert_eq!(score_range(&[1.0], &[]), Some((1.0, 2.0)));
        assert_eq!(score_range(&[], &[]), None);
    }
}
