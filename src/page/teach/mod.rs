//! From a camera to a watch: collect normal frames, look through them, fit, check, take over.

use hyper::StatusCode;
use maud::{Markup, html};

use self::folder::{Fit, Folder, MOST_FRAMES, is_frame};
use self::jobs::{Job, Outcome};
use self::work::Wish;
use super::layout::View;
use super::pictures;
use super::response::{self, Response};
use super::state::lock;
use crate::config;
use crate::fs;
use crate::model::{Model, p_text};

pub mod folder;
pub mod jobs;
pub mod work;

const PER_PAGE: usize = 24;
const USUAL_COUNT: usize = 300;
const USUAL_EVERY: &str = "2s";
/// Larger reports are not sent.
const MAX_REPORT: u64 = 8 << 20;

pub fn show(view: &View<'_>) -> Response {
    let folder = Folder::of(&view.config);
    let job = lock(&view.page.jobs).of(&view.instance.name);
    let outcome = job.as_ref().and_then(Job::outcome);
    let busy = job.is_some() && outcome.is_none();
    let frames = folder.frames();
    let fit = folder.fitted();
    let body = html! {
        (job_part(view, job.as_ref(), outcome.as_ref()))
        @if !busy { (mask_note(view)) }
        (collect_part(view, &folder, &frames, busy))
        (fit_part(view, &frames, fit.as_ref(), busy))
        @if fit.is_some() { (last_part(view, busy)) }
    };
    match busy {
        true => view.show_live("teach", body),
        false => view.show("teach", body),
    }
}

/// What goes on, or what came of it.
fn job_part(view: &View<'_>, job: Option<&Job>, outcome: Option<&Outcome>) -> Markup {
    html! {
        @match (job, outcome) {
            (Some(job), None) => {
                div class="job" {
                    // The button stays while the rest is replaced, and with it the focus.
                    div id="job" data-live role="status" {
                        p { b { (job.name) } " " (job.progress()) }
                        @match share(&job.progress()) {
                            Some((done, all)) => progress max=(all) value=(done) aria-label=(job.name) {},
                            None => progress aria-label=(job.name) {},
                        }
                    }
                    form method="post" action=(view.url("teach/cancel")) { (view.form_token()) button { "Cancel" } }
                }
            }
            (Some(job), Some(Outcome { said, checks })) => {
                div class="job" role="status" {
                    @match said {
                        Ok(said) => p { b { (job.name) ": " } (said) },
                        Err(reason) => p class="wrong" { b { (job.name) ": " } span class="said" { (reason) } },
                    }
                    @if !checks.is_empty() {
                        div class="scroll" { table {
                            @for line in checks {
                                tr { th scope="row" { (line.check) }
                                    td class=[(!line.ok).then_some("wrong")] { @if line.ok { "ok" } @else { "wrong" } }
                                    td { (line.message) } }
                            }
                        } }
                        @if checks.iter().any(|line| !line.ok) {
                            p class="note" { "The page has a sandbox of its own: what it may not open, the daemon may." }
                        }
                    }
                }
            }
            _ => {}
        }
    }
}

/// `12 of 300` in a text.
fn share(text: &str) -> Option<(u64, u64)> {
    let words: Vec<&str> = text.split(' ').collect();
    let at = words.iter().position(|word| *word == "of")?;
    Some((words.get(at.checked_sub(1)?)?.parse().ok()?, words.get(at + 1)?.parse().ok()?))
}

fn mask_note(view: &View<'_>) -> Markup {
    let wrong = Model::load(&view.config.model.path)
        .ok()
        .and_then(|model| model.check_mask(&view.config.camera.mask, &view.instance.path).err());
    html! {
        @if wrong.is_some() {
            p class="pending" { "The config has other masks than the model: fit anew, and take the model over." }
        }
    }
}

fn collect_part(view: &View<'_>, folder: &Folder, frames: &[String], busy: bool) -> Markup {
    let page = view.request.query.get("page").parse::<usize>().unwrap_or(0).min(frames.len() / PER_PAGE);
    let shown: Vec<&String> = frames.iter().skip(page * PER_PAGE).take(PER_PAGE).collect();
    html! {
        section {
            h2 { "1. Normal frames" }
            p { "Some hundred frames of what is normal, in all the light and positions that occur: frames over a day hold more than "
                "as many within minutes." }
            form method="post" action=(view.url("teach/collect")) class="filters" {
                (view.form_token())
                label { "Frames " input type="number" name="count" value=(USUAL_COUNT) min="1" max=(MOST_FRAMES) required; }
                label { "One every " input name="every" value=(USUAL_EVERY) size="6" required; }
                button disabled[busy] { "Collect" }
            }
            p id="frames" { b { (frames.len()) } " frames, " (format!("{:.1}", folder.bytes() as f64 / 1e6)) " MB in "
                code { (folder.normal().display()) } "." }
            @if let Err(reason) = folder.check_crop(&view.config) { p class="wrong" { (reason) } }
            @if !frames.is_empty() {
                p class="note" { "The newest first. Tick what is not normal." }
                form method="post" action=(view.url("teach/throw")) {
                    (view.form_token())
                    input type="hidden" name="page" value=(page);
                    ol class="frames" { @for name in &shown { li { (tick(view, name)) } } }
                    button disabled[busy] { "Throw out what is ticked" }
                }
                nav class="pages" aria-label="Pages" {
                    @if page > 0 { a rel="prev" href={ "?page=" (page - 1) } { "Newer" } }
                    span class="note" { (page * PER_PAGE + 1) " to " (page * PER_PAGE + shown.len()) }
                    @if (page + 1) * PER_PAGE < frames.len() { a rel="next" href={ "?page=" (page + 1) } { "Older" } }
                }
                form method="post" action=(view.url("teach/clear")) {
                    (view.form_token())
                    label { input type="checkbox" name="sure" value="yes" required; " all of them, for good" }
                    " " button class="quiet" disabled[busy] { "Throw all out" }
                }
            }
        }
    }
}

fn tick(view: &View<'_>, name: &str) -> Markup {
    let short = name.split(['-', '.']).next().unwrap_or(name);
    html! {
        label {
            img src=(view.url(&format!("teach/{name}"))) alt="" loading="lazy";
            span { input type="checkbox" name="frame" value=(name); " " (short) }
        }
    }
}

fn fit_part(view: &View<'_>, frames: &[String], fit: Option<&Fit>, busy: bool) -> Markup {
    html! {
        section {
            h2 { "2. Fit" }
            form method="post" action=(view.url("teach/fit")) {
                (view.form_token())
                p { @if frames.is_empty() { "Learns the frames, once there are some" } @else { "Learns the " (frames.len()) " frames" }
                    @if !view.config.camera.mask.is_empty() { ", without what is masked" }
                    ". On a small board that takes minutes." }
                button disabled[busy || frames.is_empty()] { "Fit" }
            }
            @if let Some(fit) = fit {
                h3 { "The fitted model" }
                // What ends in a colon announces names on a terminal.
                @for sentence in fit.sentences.iter().filter(|sentence| !sentence.ends_with(':')) { p { (sentence) } }
                @for warning in &fit.warnings { p class="wrong" { (warning) } }
                p { a href=(view.url("teach/report")) { "The report" } }
                (suspects(view, frames, fit, busy))
            }
        }
    }
}

/// Frames that lie farther from the rest than chance puts them.
fn suspects(view: &View<'_>, frames: &[String], fit: &Fit, busy: bool) -> Markup {
    let name = |least: &folder::Least| Some(least.path.file_name()?.to_str()?.to_owned());
    let found: Vec<(String, f64)> = fit
        .least_like_the_rest
        .iter()
        .filter(|least| least.suspect)
        .filter_map(|least| Some((name(least)?, least.p)))
        .filter(|(name, _)| frames.contains(name))
        .take(PER_PAGE)
        .collect();
    html! {
        @if !found.is_empty() {
            h3 { "Do these belong here?" }
            form method="post" action=(view.url("teach/throw")) {
                (view.form_token())
                ol class="frames" { @for (name, p) in &found { li { (tick(view, name)) span class="note" { "p " (p_text(*p)) } } } }
                button disabled[busy] { "Throw out what is ticked" }
            }
        }
    }
}

fn last_part(view: &View<'_>, busy: bool) -> Markup {
    let model = &view.config.model.path;
    html! {
        section {
            h2 { "3. Check and take over" }
            form method="post" action=(view.url("teach/check")) {
                (view.form_token())
                p { "Tries camera, model and folders as a watch would use them." }
                button class="quiet" disabled[busy] { "Check" }
            }
            form method="post" action=(view.url("teach/take-over")) {
                (view.form_token())
                p { label { input type="checkbox" name="sure" value="yes" required; " put it in the place of " code { (model.display()) }
                    @if model.exists() { ", keep that as " code { ".bak" } "," } " and have the daemon read it" } }
                button disabled[busy] { "Take over" }
            }
        }
    }
}

pub fn act(view: &View<'_>, action: &str) -> Response {
    let form = &view.request.form;
    let unsure = || view.fail("teach", "Tick that you are sure.");
    let folder = Folder::of(&view.config);
    let config = view.config.clone();
    let cannot = |e: std::io::Error| format!("Cannot throw it out: {e}");
    let done = match action {
        "collect" => wish(view).and_then(|wish| begin(view, "Collecting", move |it| work::collect(&config, &wish, it))),
        "fit" => begin(view, "Fitting", move |it| work::fit(&config, it)),
        "check" => begin(view, "Checking", move |it| work::check(&config, it)),
        "take-over" if form.get("sure") != "yes" => return unsure(),
        "take-over" => begin(view, "Taking over", move |it| work::take_over(&config, it)),
        "cancel" => {
            if let Some(job) = lock(&view.page.jobs).of(&view.instance.name) {
                job.cancel();
            }
            Ok(())
        }
        "throw" => form.all("frame").try_for_each(|name| folder.throw_out(name)).map_err(cannot),
        "clear" if form.get("sure") != "yes" => return unsure(),
        "clear" => folder.throw_all_out().map_err(cannot),
        _ => return response::status(StatusCode::NOT_FOUND),
    };
    let back = match form.get("page").parse::<usize>() {
        Ok(page) if page > 0 => view.url(&format!("teach?page={page}")),
        _ => view.url("teach"),
    };
    done.map_or_else(|reason| view.fail("teach", &reason), |()| response::see(&back))
}

fn begin<O: Into<Outcome>>(
    view: &View<'_>,
    name: &'static str,
    work: impl FnOnce(&jobs::Control) -> O + Send + 'static,
) -> Result<(), String> {
    lock(&view.page.jobs).start(&view.instance.name, name, work)
}

fn wish(view: &View<'_>) -> Result<Wish, String> {
    let form = &view.request.form;
    let count = form.get("count").parse().ok().filter(|count| (1..=MOST_FRAMES).contains(count));
    let count = count.ok_or_else(|| format!("Frames: a number from 1 to {MOST_FRAMES}."))?;
    let every_text = form.get("every").trim().to_owned();
    let every = config::parse_duration(&every_text).map_err(|e| format!("One every: {e}"))?;
    Ok(Wish { count, every, every_text })
}

pub fn frame(view: &View<'_>, name: &str) -> Response {
    match is_frame(name) {
        true => pictures::send(&Folder::of(&view.config).normal().join(name)),
        false => response::status(StatusCode::NOT_FOUND),
    }
}

pub fn report(view: &View<'_>) -> Response {
    match fs::read_unlinked(&Folder::of(&view.config).report(), MAX_REPORT) {
        Ok(bytes) => response::report(bytes),
        Err(_) => response::status(StatusCode::NOT_FOUND),
    }
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn shares_are_found_in_what_jobs_say() {
        assert_eq!(share("normal pictures 12 of 300"), Some((12, 300)));
        assert_eq!(share("3 of 4 frames"), Some((3, 4)));
        for none in ["", "of", "of 3", "a of b", "1 of"] {
            assert_eq!(share(none), None, "{none}");
        }
    }
}
