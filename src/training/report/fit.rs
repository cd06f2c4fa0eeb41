//! The page of `fit --report`: the promise, the scores, and the normals with the lowest scores.

use std::fmt::Write;

use super::{Exhibit, escape, exhibits, figure, head, parameters, plots};
use crate::model::Model;

/// The contents of the page.
#[derive(Debug)]
pub struct FitReport<'a> {
    pub title: String,
    pub model: &'a Model,
    /// The sentences of `fit`.
    pub sentences: &'a [String],
    /// Held-out scores of normals.
    pub scores: &'a [f64],
    /// Normals that may be outliers.
    pub suspects: Vec<Exhibit>,
    /// The next ones by score.
    pub next: Vec<Exhibit>,
}

/// The page.
pub fn html(report: &FitReport) -> String {
    let mut page = String::new();
    head(&mut page, &report.title);
    page.push_str("<section id=\"promise\">");
    for line in report.sentences {
        let _ = write!(page, "<p>{}</p>", escape(line));
    }
    page.push_str("</section>\n<div class=\"plots\">\n");
    let cut = report.model.cut();
    figure(
        &mut page,
        "Scores",
        "Normal pictures by the score of a model that did not see them; left of the line is called an outlier.",
        &plots::histogram(report.scores, &[], cut),
    );
    page.push_str("</div>\n");
    exhibits(
        &mut page,
        "Do these belong here?",
        "suspects",
        &report.suspects,
        "No picture stands out from the others.",
    );
    exhibits(&mut page, "The next least like the rest", "next", &report.next, "There are none.");
    parameters(&mut page, report.model);
    page.push_str("</main></body></html>\n");
    page
}
