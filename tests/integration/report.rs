//! The report page in a headless browser, where one is installed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ndarray::Array2;
use outlierd::internals::image::InputRecipe;
use outlierd::internals::model::anomaly_map::AnomalyMap;
use outlierd::internals::model::{FeatureSource, Model};
use outlierd::internals::training::evaluation::Evaluation;
use outlierd::internals::training::fit::{self, Options};
use outlierd::internals::training::report::fit::FitReport;
use outlierd::internals::training::report::{self, Case, Exhibit, Report, Thumbnail};
use serde_json::Value;

use crate::common::browser;

/// Runs the browser on a page and gives its standard output.
fn browse(program: &Path, dir: &Path, page: &Path, options: &[&str]) -> String {
    let output = Command::new(program)
        .args(browser::OPTIONS)
        .arg("--hide-scrollbars")
        .arg(format!("--user-data-dir={}", dir.join("profile").display()))
        .args(options)
        .arg(format!("file://{}", page.display()))
        .stderr(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn cloud(n: usize, seed: u64, shift: f32) -> Array2<f32> {
    use rand::{RngExt, SeedableRng};
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    Array2::from_shape_fn((n, 24), |(_, c)| {
        let noise: f32 = (0..4).map(|_| rng.random_range(-1.0_f32..1.0)).sum();
        noise * (1.0 + (c % 7) as f32) + if c % 3 == 0 { shift } else { 0.0 }
    })
}

fn cases(model: &Model, rows: &Array2<f32>, outlier: bool) -> Vec<Case> {
    let judged = rows.rows().into_iter().map(|row| model.score(&row.to_vec(), None).unwrap());
    let path = |n| PathBuf::from(format!("/pictures/a long folder name/<picture> & {n:03}-of-a-long-name.png"));
    judged.enumerate().map(|(n, verdict)| Case { path: path(n), outlier, verdict }).collect()
}

/// A picture for every shape: wide, tall, square; with and without a map.
fn exhibits(cases: &[Case], outlier: bool) -> Vec<Exhibit> {
    let sizes = [(640, 200), (60, 400), (224, 224)];
    let worst = report::worst(cases, outlier, 6);
    worst
        .into_iter()
        .enumerate()
        .map(|(n, case)| {
            let (width, height) = sizes[n % 3];
            let picture = image::RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 90]));
            let cells = (0..49).map(|at| if at == 6 { 9.0 } else { 0.1 * at as f32 }).collect();
            let map = AnomalyMap { height: 7, width: 7, cells };
            let recipe = if n % 4 == 0 { InputRecipe::torch() } else { InputRecipe::caffe() };
            let map = (n % 2 == 0).then(|| map.at(outlierd::internals::image::seen(width, height, &recipe)));
            Exhibit { case: case.clone(), thumbnail: Thumbnail::of(&picture).unwrap(), map }
        })
        .collect()
}

/// A page with every plot, mistakes of both kinds, and names that need escaping.
fn page() -> String {
    let outliers = cloud(60, 3, 2.5);
    let fitted = crate::common::fit_rows(
        cloud(300, 1, 0.0).view(),
        Some(outliers.view()),
        FeatureSource::unknown(),
        &Options::default(),
    );
    let model = fitted.unwrap().model;
    let mut all = cases(&model, &cloud(200, 5, 0.0), false);
    all.extend(cases(&model, &cloud(80, 6, 2.5), true));
    let verdicts = |outlier: bool| all.iter().filter(|c| c.outlier == outlier).map(|c| c.verdict).collect::<Vec<_>>();
    let evaluation = Evaluation::of(&model, &verdicts(false), &verdicts(true));
    report::html(&Report {
        title: "/var/lib/outlierd/<model> & co.outlierd: 280 pictures".into(),
        model: &model,
        evaluation: &evaluation,
        cases: &all,
        false_alarms: exhibits(&all, false),
        misses: exhibits(&all, true),
    })
}

/// Opens the page in a frame of a width and measures it there.
const MEASURE: &str = r##"<script>
onload = () => {
  const frame = document.querySelector("iframe"), page = frame.contentDocument, root = page.documentElement;
  const overlaps = [], cut = [];
  for (const plot of page.querySelectorAll(".plots svg")) {
    const edge = plot.getBoundingClientRect();
    const texts = [...plot.querySelectorAll("text")].map(t => [t.textContent, t.getBoundingClientRect()]);
    texts.forEach(([text, a], i) => {
      if (a.left < edge.left - 1 || a.right > edge.right + 1 || a.top < edge.top - 1 || a.bottom > edge.bottom + 1)
        cut.push(text);
      for (const [other, b] of texts.slice(i + 1))
        if (a.left + 1 < b.right && b.left + 1 < a.right && a.top + 2 < b.bottom && b.top + 2 < a.bottom)
          overlaps.push(text + " on " + other);
    });
  }
  const broken = [...page.querySelectorAll("#confusion th")].filter(t => t.scrollWidth > t.clientWidth + 1);
  const drawn = "path.curve, rect, circle";
  const shapes = [...page.querySelectorAll(".plots svg")].map(s => s.querySelectorAll(drawn).length);
  const loaded = frame.contentWindow.performance.getEntriesByType("resource").map(e => e.name);
  document.body.textContent = JSON.stringify({
    width: root.clientWidth, scroll: root.scrollWidth, overlaps, cut, shapes, broken: broken.length,
    external: loaded.filter(n => !n.startsWith("data:")),
    exhibits: page.querySelectorAll(".exhibits figure").length,
    pictures: [...page.querySelectorAll(".exhibits image")].filter(i => i.getBoundingClientRect().height > 20).length,
    headings: [...page.querySelectorAll("h2")].map(h => h.textContent),
    title: page.title, text: page.body.innerText,
  });
};
</script>"##;

fn measured(browser: &Path, dir: &Path, page: &str, width: u32) -> Value {
    let frame = format!("<iframe style=\"width:{width}px;height:900px;border:0\" srcdoc=\"{}\">", report::escape(page));
    let path = dir.join(format!("measure-{width}.html"));
    std::fs::write(&path, format!("<!doctype html><meta charset=\"utf-8\">{MEASURE}<body>{frame}</iframe></body>"))
        .unwrap();
    let dom = browse(browser, dir, &path, &["--window-size=1400,1000", "--dump-dom"]);
    let json = dom.split_once("<body>").unwrap().1.split_once("</body>").unwrap().0;
    let plain = json.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    serde_json::from_str(&plain).unwrap_or_else(|e| panic!("{e}: {plain}"))
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let page = page();
    for word in ["http:", "https:", "<script", "<link", "@import", "url(", "<iframe"] {
        assert!(!page.contains(word), "{word}");
    }
    let references: Vec<&str> =
        page.split("href=\"").skip(1).chain(page.split("src=\"").skip(1)).map(|r| &r[..22]).collect();
    assert!(!references.is_empty() && references.iter().all(|r| r.starts_with("data:image/jpeg;base64")));
    assert!(!page.contains("<picture> &") && page.contains("&lt;picture&gt; &amp;"), "names are not escaped");
}

#[test]
fn the_page_fits_a_desk_and_a_phone() {
    let Some(browser) = browser::find("the_page_fits_a_desk_and_a_phone") else { return };
    let dir = tempfile::tempdir().unwrap();
    let page = page();
    for width in [1100, 390] {
        let found = measured(&browser, dir.path(), &page, width);
        println!("{width}: {found}");
        assert_eq!(found["width"], width);
        assert!(found["scroll"].as_u64().unwrap() <= u64::from(width), "it scrolls sideways: {}", found["scroll"]);
        for nothing in ["overlaps", "cut", "external"] {
            assert!(found[nothing].as_array().unwrap().is_empty(), "{width}: {nothing}: {}", found[nothing]);
        }
        assert_eq!(found["broken"], 0);
        let shapes: Vec<u64> = found["shapes"].as_array().unwrap().iter().filter_map(Value::as_u64).collect();
        assert!(shapes.len() == 4 && shapes.iter().all(|n| *n > 0), "a plot is empty: {shapes:?}");
        assert!(found["exhibits"].as_u64().unwrap() >= 4);
        assert_eq!(found["exhibits"], found["pictures"]);
        assert_eq!(found["title"], "/var/lib/outlierd/<model> & co.outlierd: 280 pictures");
        let text = found["text"].as_str().unwrap();
        for word in ["AUROC", "Average precision", "Brier score", "80 outliers", "200 inliers", "mixture+residual"] {
            assert!(text.contains(word), "no '{word}' in {text}");
        }
        let headings: Vec<&str> = found["headings"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let wanted = [
            "ROC curve",
            "Precision and recall",
            "Scores",
            "Reliability",
            "Worst false alarms",
            "Worst misses",
            "Model",
        ];
        assert_eq!(headings, wanted);
    }
}

#[test]
fn the_page_is_dark_where_the_reader_s_screen_is() {
    let Some(browser) = browser::find("the_page_is_dark_where_the_reader_s_screen_is") else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("report.html");
    std::fs::write(&path, page()).unwrap();
    for (scheme, dark) in [(0, true), (1, false)] {
        let picture = dir.path().join(format!("{scheme}.png"));
        let screenshot = format!("--screenshot={}", picture.display());
        let scheme = format!("--blink-settings=preferredColorScheme={scheme}");
        browse(&browser, dir.path(), &path, &["--window-size=800,900", &scheme, &screenshot]);
        let picture = image::open(&picture).unwrap().into_rgb8();
        assert_eq!(picture.get_pixel(2, 2)[0] < 60, dark, "the page's ground is {:?}", picture.get_pixel(2, 2));
        let ink = picture.pixels().filter(|p| (p[0] > 180) == dark && p[0].abs_diff(p[2]) < 20).count();
        assert!(ink > 500, "{ink} pixels of ink");
    }
}

#[test]
fn the_page_of_a_fit_fits_a_desk_and_a_phone() {
    let fitted =
        crate::common::fit_rows(cloud(300, 1, 0.0).view(), None, FeatureSource::unknown(), &Options::default())
            .unwrap();
    let model = fitted.model;
    let cases = cases(&model, &cloud(12, 6, 9.0), false);
    let shown = |range: std::ops::Range<usize>| exhibits(&cases[range], false);
    let scores: Vec<f64> = fitted.held.iter().map(|(_, score)| *score).collect();
    let said = fit::meaning(&model, 3);
    let page = report::fit::html(&FitReport {
        title: "<model>.outlierd: fitted on 300 pictures".into(),
        model: &model,
        sentences: &said,
        scores: &scores,
        suspects: shown(0..6),
        next: shown(6..12),
    });
    for word in ["http:", "https:", "<script", "<link", "@import", "url(", "<iframe", "<model>"] {
        assert!(!page.contains(word), "{word}");
    }
    let Some(browser) = browser::find("the_page_of_a_fit_fits_a_desk_and_a_phone") else { return };
    let dir = tempfile::tempdir().unwrap();
    for width in [1100, 390] {
        let found = measured(&browser, dir.path(), &page, width);
        assert!(found["scroll"].as_u64().unwrap() <= u64::from(width), "it scrolls sideways: {}", found["scroll"]);
        for nothing in ["overlaps", "cut", "external"] {
            assert!(found[nothing].as_array().unwrap().is_empty(), "{width}: {nothing}: {}", found[nothing]);
        }
        assert_eq!((&found["exhibits"], &found["pictures"]), (&12.into(), &12.into()));
        let text = found["text"].as_str().unwrap();
        for words in ["about 1 false alarm in 100", "Do these belong here?", "The next least like the rest"] {
            assert!(text.contains(words), "no '{words}' in {text}");
        }
    }
}
