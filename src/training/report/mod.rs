//! The reports of `eval --report` and `fit --report`: one self-contained HTML page each.

use std::fmt::Write;

use super::evaluation::Evaluation;
use super::metrics;
use crate::model::anomaly_map::PlacedMap;
use crate::model::{Model, hex, p_text};

mod case;
pub mod fit;
mod plots;
mod thumbnail;

pub use case::Case;
pub use thumbnail::Thumbnail;

/// A picture shown on the page.
#[derive(Debug, Clone)]
pub struct Exhibit {
    pub case: Case,
    pub thumbnail: Thumbnail,
    pub map: Option<PlacedMap>,
}

/// The contents of the page.
#[derive(Debug)]
pub struct Report<'a> {
    pub title: String,
    pub model: &'a Model,
    pub evaluation: &'a Evaluation,
    pub cases: &'a [Case],
    /// Inliers called outliers, the lowest score first.
    pub false_alarms: Vec<Exhibit>,
    /// Outliers called inliers, the highest score first.
    pub misses: Vec<Exhibit>,
}

/// The `n` worst mistakes of one kind: normals with the lowest p (`outlier` false), or outliers with the highest.
pub fn worst(cases: &[Case], outlier: bool, n: usize) -> Vec<&Case> {
    let mut wrong: Vec<&Case> = cases.iter().filter(|c| c.outlier == outlier && c.verdict.outlier != outlier).collect();
    wrong.sort_by(|a, b| {
        let order = a.verdict.score.total_cmp(&b.verdict.score);
        if outlier { order.reverse() } else { order }
    });
    wrong.truncate(n);
    wrong
}

/// Escapes text for HTML.
pub fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
        out
    })
}

const STYLE: &str = include_str!("style.css");

fn head(page: &mut String, title: &str) {
    let title = escape(title);
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title}</title><style>{STYLE}</style></head>\n<body><main>\n<h1>{title}</h1>\n"
    );
}

/// The page.
pub fn html(report: &Report) -> String {
    let mut page = String::new();
    head(&mut page, &report.title);
    figures(&mut page, report.evaluation);
    let scores = |outlier: bool| -> Vec<f64> {
        report.cases.iter().filter(|c| c.outlier == outlier).map(|c| c.verdict.score).collect()
    };
    let (inliers, outliers) = (scores(false), scores(true));
    page.push_str("<div class=\"plots\">\n");
    if !inliers.is_empty() && !outliers.is_empty() {
        let steps = metrics::steps(&inliers, &outliers);
        figure(
            &mut page,
            "ROC curve",
            "How many outliers are caught at each rate of false alarms; the dot is the threshold.",
            &plots::roc(&steps, &report.evaluation.confusion),
        );
        figure(
            &mut page,
            "Precision and recall",
            "Outliers as the positive class; the dot is the threshold.",
            &plots::precision_recall(&steps, &report.evaluation.confusion),
        );
    }
    figure(
        &mut page,
        "Scores",
        "<span class=\"key bar-in\"></span>inliers <span class=\"key bar-out\"></span>outliers. Counts of pictures by \
         score; left of the line is called an outlier.",
        &plots::histogram(&inliers, &outliers, plots::score_threshold(report.cases)),
    );
    if report.model.calibration.name() == "isotonic" {
        figure(
            &mut page,
            "Reliability",
            "The share of inliers among pictures of similar p; on the diagonal, p is what it says. \
             Dots are larger where there are more pictures.",
            &plots::reliability(report.cases),
        );
    }
    page.push_str("</div>\n");
    exhibits(&mut page, "Worst false alarms", "false-alarms", &report.false_alarms, "No inlier was called an outlier.");
    exhibits(&mut page, "Worst misses", "misses", &report.misses, "No outlier was missed.");
    parameters(&mut page, report.model);
    page.push_str("</main></body></html>\n");
    page
}

fn figures(page: &mut String, e: &Evaluation) {
    let number = |v: Option<f64>| v.map_or("–".into(), |v| format!("{v:.4}"));
    let c = &e.confusion;
    let _ = write!(
        page,
        "<p>Detector <b>{}</b>, calibration <b>{}</b>; a picture is an outlier when p &lt; {:.4}.</p>\n\
         <dl class=\"tiles\"><div><dt>AUROC</dt><dd>{}</dd></div><div><dt>Average precision</dt><dd>{}</dd></div>\
         <div><dt>Accuracy</dt><dd>{:.4}</dd></div>",
        escape(&e.detector),
        escape(&e.calibration),
        e.threshold,
        number(e.auroc),
        number(e.average_precision),
        e.accuracy
    );
    if let Some(brier) = e.brier {
        let _ = write!(page, "<div><dt>Brier score</dt><dd>{brier:.4}</dd></div>");
    }
    let _ = write!(
        page,
        "</dl>\n<div class=\"scroll\"><table id=\"confusion\"><thead><tr><th></th><th>called outlier</th><th>called inlier</th>\
         <th>precision</th><th>recall</th><th>F1</th></tr></thead><tbody>"
    );
    if let Some(o) = &e.outlier {
        let _ = write!(
            page,
            "<tr><th>{} outliers</th><td>{}</td><td>{}</td><td>{:.4}</td><td>{:.4}</td><td>{:.4}</td></tr>",
            e.n_outlier, c.true_outlier, c.false_inlier, o.precision, o.recall, o.f1
        );
    }
    let _ = writeln!(
        page,
        "<tr><th>{} inliers</th><td>{}</td><td>{}</td><td>{:.4}</td><td>{:.4}</td><td>{:.4}</td></tr></tbody></table></div>",
        e.n_inlier, c.false_outlier, c.true_inlier, e.inlier.precision, e.inlier.recall, e.inlier.f1
    );
}

fn figure(page: &mut String, title: &str, caption: &str, svg: &str) {
    let _ = writeln!(page, "<figure><h2>{title}</h2>{svg}<figcaption>{caption}</figcaption></figure>");
}

fn exhibits(page: &mut String, title: &str, id: &str, exhibits: &[Exhibit], none: &str) {
    let _ = writeln!(page, "<section id=\"{id}\"><h2>{title}</h2>");
    if exhibits.is_empty() {
        let _ = writeln!(page, "<p>{none}</p></section>");
        return;
    }
    page.push_str("<div class=\"exhibits\">");
    for exhibit in exhibits {
        let name = exhibit.case.path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        let _ = write!(
            page,
            "<figure title=\"{}\">{}<figcaption>{}<br>p {}<br>score {}</figcaption></figure>",
            escape(&exhibit.case.path.to_string_lossy()),
            exhibit.thumbnail.svg(exhibit.map.as_ref()),
            escape(&name),
            p_text(exhibit.case.verdict.p),
            plots::brief(exhibit.case.verdict.score)
        );
    }
    page.push_str("</div>\n");
    if exhibits.iter().any(|e| e.map.is_some()) {
        page.push_str("<p class=\"note\">The frame marks the maximum of the anomaly map, the tint its values. What the network did not \
             see is dark.</p>");
    }
    page.push_str("</section>\n");
}

fn parameters(page: &mut String, model: &Model) {
    let input = &model.source.input;
    let mut rows = vec![
        ("backbone", model.source.name()),
        ("SHA-256", hex(&model.source.sha256)),
        ("tap", format!("{}, {} pooling, {} values", model.source.tap, model.source.pooling, model.n_features())),
        ("input", format!("{}, {}x{}, {:?}", input.name(), input.width, input.height, input.geometry).to_lowercase()),
        ("transform", model.transform.to_string()),
        ("components", format!("{}{}", model.components.rows(), if model.whiten { ", whitened" } else { "" })),
        ("detector", model.detector_name().to_owned()),
    ];
    rows.extend(model.detector.parameters().into_iter().map(|(name, value)| ("", format!("{name} = {value}"))));
    rows.push(("training", model.training.sentence()));
    rows.push(("made by", format!("outlierd {}", model.crate_version)));
    page.push_str("<section id=\"parameters\"><h2>Model</h2><div class=\"scroll\"><table>");
    for (name, value) in rows {
        let _ = write!(page, "<tr><th>{name}</th><td>{}</td></tr>", escape(&value));
    }
    page.push_str("</table></div></section>\n");
}
