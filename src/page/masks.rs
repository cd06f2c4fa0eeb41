//! The crop and the masks, drawn on the picture or written as text.

use hyper::StatusCode;
use maud::{Markup, html};

use super::layout::View;
use super::pictures;
use super::response::{self, Response};
use super::teach::folder::{Folder, frames_in};
use super::teach::work;
use crate::config::edit_region::{mask_lines, set_region};
use crate::config::{Config, Crop};
use crate::image::mask::Mask;
use crate::model::Model;
use crate::watch::observe;

pub fn show(view: &View<'_>) -> Response {
    let camera = &view.config.camera;
    let observed = observe::ask_for_pictures(&view.config.socket_path());
    let crop = camera.crop.map(|crop| crop.to_string());
    let polygons: Vec<String> = camera.mask.polygons().iter().map(|polygon| format!("{polygon:?}")).collect();
    let body = html! {
        p { "A " b { "mask" } " is a part of the picture that counts for nothing: a tree in the wind, a clock. The " b { "crop" }
            " is the part of the camera's frame that is the picture." }
        @if observed.as_ref().is_ok_and(|observed| observed.camera.crop != crop) {
            p class="pending" { "The running daemon still has another crop than the config: the picture is not yet what it will be." }
        }
        @if observed.is_err() {
            form method="post" action=(view.url("aim")) {
                (view.form_token())
                p { "The daemon does not run. " button { "Take a picture" } }
            }
        }
        div id="draw" class="draw" data-crop=[&crop] {
            div class="tools" hidden {
                fieldset {
                    legend { "Draw" }
                    label { input type="radio" name="tool" value="mask" checked; " a mask" }
                    label { input type="radio" name="tool" value="crop"; " the crop" }
                }
                button type="button" id="close-polygon" { "Close the mask" }
                button type="button" id="take-back" { "Take the last corner back" }
                p class="note" id="draw-help" {
                    "Click or tap corner after corner, and the first one again; drag corners that are there. By keyboard: arrows move "
                    "the cross (with Shift in small steps), Enter sets a corner, Backspace takes it back, C closes the mask."
                }
            }
            div class="layers" {
                img id="still" src=(view.url("still.jpg")) alt="What the camera sees. There is none yet where nothing is shown";
                svg id="sheet" viewBox="0 0 1000 1000" preserveAspectRatio="none" aria-hidden="true" {}
            }
            p id="draw-said" class="note" role="status" {}
            ul id="drawn" class="drawn" {}
        }
        (masks_form(view, &polygons.join("\n")))
        (crop_form(view, crop.as_deref()))
        h2 { "The lines of the config" }
        pre { code id="lines" { (lines(camera.crop, &camera.mask)) } }
        @if !view.instance.is_writable() {
            p { "The page may not write to the config, which is as it should be unless you want it (see "
                code { "outlierd-page.service.d/config.conf.example" } "). By hand: put these lines into "
                code { (view.instance.path.display()) } ", and fit anew." }
        }
    };
    view.show("masks", body)
}

fn masks_form(view: &View<'_>, polygons: &str) -> Markup {
    html! {
        h2 { "Masks" }
        form method="post" action=(view.url("masks")) {
            (view.form_token())
            label for="masks" { "One mask a line: its corners as shares of the picture's width and height" }
            textarea id="masks" name="masks" rows="4" spellcheck="false" placeholder="[[0.0, 0.4], [0.3, 0.4], [0.3, 1.0], [0.0, 1.0]]" { (polygons) }
            @if view.instance.is_writable() {
                p { label { input type="checkbox" name="sure" value="yes" required; " write them into " code { (view.instance.path.display()) }
                    ". The model must be fitted anew with them: the daemon goes on as before until that is taken over" } }
                button { "Apply the masks" }
            }
        }
    }
}

fn crop_form(view: &View<'_>, crop: Option<&str>) -> Markup {
    let masks = view.config.camera.mask.polygons().len();
    html! {
        h2 { "Crop" }
        form method="post" action=(view.url("crop")) {
            (view.form_token())
            label for="crop" { "x, y, width, height as shares of the camera's frame, or whole pixels; empty: all of it" }
            input id="crop" name="crop" value=(crop.unwrap_or_default()) spellcheck="false" placeholder="[0.1, 0.0, 0.5, 1.0]";
            @if view.instance.is_writable() {
                p { label { input type="checkbox" name="sure" value="yes" required; " write it into " code { (view.instance.path.display()) }
                    " and reload the daemon. The model must be fitted anew with frames of that crop"
                    @if masks > 0 { "; the " (masks) " masks go, because they are shares of the picture" } } }
                button { "Apply the crop" }
            }
        }
    }
}

fn lines(crop: Option<Crop>, mask: &Mask) -> String {
    let crop = crop.map_or_else(String::new, |crop| format!("crop = {crop}\n"));
    format!("[camera]\n{crop}\n{}", mask_lines(mask))
}

/// What the daemon sees, else the picture that was taken last, else the frame that was collected last.
pub fn still(view: &View<'_>) -> Response {
    if observe::ask(&view.config.socket_path()).is_ok() {
        return pictures::snapshot(view.instance);
    }
    let folder = Folder::of(&view.config);
    let newest = |folder: std::path::PathBuf| Some(folder.join(frames_in(&folder).into_iter().next()?));
    match newest(folder.aim()).or_else(|| newest(folder.normal())) {
        Some(path) => pictures::send(&path),
        None => response::status(StatusCode::NOT_FOUND),
    }
}

pub fn aim(view: &View<'_>) -> Response {
    match work::aim(&view.config) {
        Ok(()) => response::see(&view.url("masks")),
        Err(reason) => view.fail("masks", &reason),
    }
}

pub fn apply_masks(view: &View<'_>) -> Response {
    let form = &view.request.form;
    if form.get("sure") != "yes" {
        return view.fail("masks", "Tick that you are sure: the config is written.");
    }
    let mask = match parse(form.get("masks")) {
        Ok(mask) => mask,
        Err(reason) => return view.fail("masks", &reason),
    };
    match set_region(&view.instance.path, view.config.camera.crop, &mask) {
        Ok(()) => response::see(&view.url("teach")),
        Err(e) => view.fail("masks", &e.to_string()),
    }
}

pub fn apply_crop(view: &View<'_>) -> Response {
    let form = &view.request.form;
    if form.get("sure") != "yes" {
        return view.fail("masks", "Tick that you are sure: the config is written and the daemon reloaded.");
    }
    let crop = match form.get("crop").trim() {
        "" => None,
        text => match text.parse::<Crop>() {
            Ok(crop) => Some(crop),
            Err(reason) => return view.fail("masks", &reason),
        },
    };
    let camera = &view.config.camera;
    let none = Mask::default();
    let mask = if crop == camera.crop { &camera.mask } else { &none };
    if let Err(e) = set_region(&view.instance.path, crop, mask) {
        return view.fail("masks", &e.to_string());
    }
    match reload(&view.config, mask) {
        Ok(()) | Err(observe::Error::NotRunning) => response::see(&view.url("teach")),
        Err(e) => view.fail("masks", &format!("The config has it, but the daemon was not told: {e}")),
    }
}

/// A daemon refuses a config whose masks are not its model's: it is told once a model with these is taken over.
fn reload(config: &Config, mask: &Mask) -> Result<(), observe::Error> {
    match Model::load(&config.model.path) {
        Ok(model) if model.check_mask(mask, config.path()).is_ok() => observe::reload(&config.socket_path()),
        _ => Ok(()),
    }
}

/// A polygon a line.
fn parse(text: &str) -> Result<Mask, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let polygon = |(at, line): (usize, &str)| {
        serde_json::from_str::<Vec<[f64; 2]>>(line)
            .map_err(|e| format!("Line {}: write a mask as [[x, y], [x, y], [x, y]]: {e}", at + 1))
    };
    Mask::new(lines.map(polygon).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_mask_is_a_line() {
        let mask = parse("\n[[0, 0], [1, 0.5], [0.25, 1]]\r\n[[0.5,0.5],[1,1],[0,1]]\n").unwrap();
        assert_eq!(
            mask.polygons(),
            [vec![[0.0, 0.0], [1.0, 0.5], [0.25, 1.0]], vec![[0.5, 0.5], [1.0, 1.0], [0.0, 1.0]]]
        );
        assert!(parse("").unwrap().is_empty());
        for wrong in ["[[0, 0], [1, 1]]", "[[0, 0], [1, 1], [0, 2]]", "x", "[[0, 0, 0], [1, 1], [0, 1]]"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
