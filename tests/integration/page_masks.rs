//! Masks and the crop, drawn by mouse, touch and keyboard.

use outlierd::internals::config::{Config, Crop};
use serde_json::{Value, json};

use super::page::watched;
use crate::common::browser::{self, Browser};
use crate::common::daemon::Place;
use crate::common::page::{Answer, Page};

fn config(place: &Place) -> Config {
    Config::load(&place.path("o.toml")).unwrap()
}

/// Where shares of the picture are on the screen.
fn place_of(browser: &mut Browser, [x, y]: [f64; 2]) -> [f64; 2] {
    browser.value("document.getElementById('sheet').scrollIntoView({ block: 'center' })");
    let edge = browser.value("(({ x, y, width, height }) => [x, y, width, height])(document.getElementById('sheet').getBoundingClientRect())");
    let edge: Vec<f64> = edge.as_array().unwrap().iter().map(|it| it.as_f64().unwrap()).collect();
    [edge[0] + x * edge[2], edge[1] + y * edge[3]]
}

fn mouse(browser: &mut Browser, kind: &str, at: [f64; 2]) {
    let [x, y] = place_of(browser, at);
    let event = json!({"type": kind, "x": x, "y": y, "button": "left", "buttons": 1, "clickCount": 1});
    browser.tell("Input.dispatchMouseEvent", event);
}

fn click(browser: &mut Browser, at: [f64; 2]) {
    mouse(browser, "mousePressed", at);
    mouse(browser, "mouseReleased", at);
}

fn touch(browser: &mut Browser, at: [f64; 2]) {
    let [x, y] = place_of(browser, at);
    browser.tell("Input.dispatchTouchEvent", json!({"type": "touchStart", "touchPoints": [{"x": x, "y": y}]}));
    browser.tell("Input.dispatchTouchEvent", json!({"type": "touchEnd", "touchPoints": []}));
}

fn key(browser: &mut Browser, key: &str, times: usize) {
    for _ in 0..times {
        for kind in ["keyDown", "keyUp"] {
            browser.tell("Input.dispatchKeyEvent", json!({"type": kind, "key": key}));
        }
    }
}

fn masks(browser: &mut Browser) -> Vec<Vec<[f64; 2]>> {
    let text = browser.value("document.getElementById('masks').value");
    text.as_str().unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn is_near(found: &[[f64; 2]], wanted: &[[f64; 2]]) {
    let near = |(a, b): (&[f64; 2], &[f64; 2])| (a[0] - b[0]).abs() < 0.01 && (a[1] - b[1]).abs() < 0.01;
    assert!(found.len() == wanted.len() && found.iter().zip(wanted).all(near), "{found:?} is not {wanted:?}");
}

#[test]
fn masks_and_crop_are_drawn_and_applied() {
    let Some(program) = browser::find("page masks") else { return };
    let (place, _daemon) = watched("# mine\ninterval = \"50ms\"", "");
    let page = Page::of(&place);
    let mut browser = Browser::start(&program);
    let url = format!("http://{}/o/masks", page.address);
    browser.open(&url);
    browser.wait_for("document.getElementById('still').naturalWidth === 320");

    let by_mouse = [[0.1, 0.1], [0.4, 0.1], [0.4, 0.5]];
    by_mouse.iter().for_each(|at| click(&mut browser, *at));
    click(&mut browser, by_mouse[0]);
    let by_touch = [[0.6, 0.6], [0.9, 0.6], [0.9, 0.9], [0.6, 0.9]];
    by_touch.iter().for_each(|at| touch(&mut browser, *at));
    browser.click("#close-polygon");
    let drawn = masks(&mut browser);
    assert_eq!(drawn.len(), 2);
    is_near(&drawn[0], &by_mouse);
    is_near(&drawn[1], &by_touch);

    // A corner is dragged.
    mouse(&mut browser, "mousePressed", [0.9, 0.9]);
    mouse(&mut browser, "mouseMoved", [0.95, 0.95]);
    mouse(&mut browser, "mouseReleased", [0.95, 0.95]);
    is_near(&masks(&mut browser)[1], &[[0.6, 0.6], [0.9, 0.6], [0.95, 0.95], [0.6, 0.9]]);

    // By keyboard, from where the cross is.
    browser.value("document.getElementById('sheet').focus()");
    key(&mut browser, "ArrowLeft", 40);
    key(&mut browser, "ArrowDown", 60);
    key(&mut browser, "Enter", 1);
    key(&mut browser, "ArrowRight", 5);
    key(&mut browser, "Enter", 1);
    key(&mut browser, "ArrowUp", 5);
    key(&mut browser, "Enter", 1);
    key(&mut browser, "ArrowUp", 5);
    key(&mut browser, "Enter", 1);
    key(&mut browser, "Backspace", 1);
    key(&mut browser, "c", 1);
    let drawn = masks(&mut browser);
    assert_eq!(drawn.len(), 3);
    let left = drawn[2][0][0];
    is_near(&drawn[2], &[[left, 1.0], [left + 0.1, 1.0], [left + 0.1, 0.9]]);
    browser.look("masks");
    browser.click("#drawn li:nth-child(2) button");
    assert_eq!(masks(&mut browser), [drawn[0].clone(), drawn[2].clone()]);

    // What is written is drawn; what is no mask is not sent.
    let count = "document.querySelectorAll('#sheet polygon').length";
    let write = |text: &str| {
        format!(
            "{{ const it = document.getElementById('masks'); it.value = {text:?}; it.dispatchEvent(new Event('input')); }}"
        )
    };
    browser.value(&write("[[0, 0], [1, 2], [0, 1]]"));
    assert_eq!(browser.value("document.getElementById('masks').checkValidity()"), Value::Bool(false));
    browser.value(&write("[[0.0, 0.0], [0.5, 0.0], [0.0, 0.5]]"));
    assert_eq!(browser.value("document.getElementById('masks').checkValidity()"), Value::Bool(true));
    assert_eq!(browser.value(count), 1);
    browser.click("form[action$='/masks'] [name=sure]");
    browser.click("form[action$='/masks'] button");
    browser.wait_for("location.pathname === '/o/teach'");
    browser.wait_for("document.querySelector('.pending').textContent.includes('other masks than the model')");
    assert_eq!(config(&place).camera.mask.polygons(), [[[0.0, 0.0], [0.5, 0.0], [0.0, 0.5]]]);
    assert!(std::fs::read_to_string(place.path("o.toml")).unwrap().contains("# mine\n"));

    browser.open(&url);
    browser.wait_for("document.getElementById('still').naturalWidth === 320");
    browser.click("[name=tool][value=crop]");
    mouse(&mut browser, "mousePressed", [0.25, 0.2]);
    mouse(&mut browser, "mouseMoved", [0.75, 0.6]);
    mouse(&mut browser, "mouseReleased", [0.75, 0.6]);
    browser.look("crop");
    browser.click("form[action$='/crop'] [name=sure]");
    browser.click("form[action$='/crop'] button");
    browser.wait_for("location.pathname === '/o/teach'");
    let camera = config(&place).camera;
    let Some(Crop::Shares([x, y, width, height])) = camera.crop else { panic!("{:?}", camera.crop) };
    is_near(&[[x, y], [width, height]], &[[0.25, 0.2], [0.5, 0.4]]);
    assert!(camera.mask.is_empty());
    // The daemon has reloaded, and shows the crop; a crop of that is a part of the part.
    let width = |answer: &Answer| image::load_from_memory(&answer.body).map_or(0, |picture| picture.width());
    page.wait_for("/o/still.jpg", "cropped picture", |answer| width(answer) == 160);
    browser.open(&url);
    browser.click("[name=tool][value=crop]");
    browser.value("document.getElementById('sheet').focus()");
    key(&mut browser, "Enter", 1);
    key(&mut browser, "ArrowRight", 30);
    key(&mut browser, "ArrowDown", 30);
    key(&mut browser, "Enter", 1);
    let text = browser.value("document.getElementById('crop').value");
    let part: Vec<f64> = serde_json::from_str(text.as_str().unwrap()).unwrap();
    is_near(&[[part[0], part[1]], [part[2], part[3]]], &[[0.5, 0.4], [0.25, 0.2]]);
    assert_eq!(browser.complaints, [""; 0]);
}

#[test]
fn what_is_no_mask_and_no_crop_is_refused_and_the_text_is_enough() {
    let (place, _daemon) = watched("# mine\ninterval = \"50ms\"\ncrop = [0, 0, 300, 200]", "");
    let page = Page::of(&place);
    let shown = page.get("/o/masks");
    assert!(shown.text().contains("crop = [0, 0, 300, 200]"), "{}", shown.text());
    let before = std::fs::read_to_string(place.path("o.toml")).unwrap();
    let good = "masks=%5B%5B0%2C0%5D%2C%5B1%2C0%5D%2C%5B0%2C1%5D%5D";
    for (path, fields) in [
        ("/o/masks", good.to_owned()),
        ("/o/masks", "masks=x&sure=yes".into()),
        ("/o/masks", "masks=%5B%5B0%2C0%5D%2C%5B1%2C0%5D%5D&sure=yes".into()),
        ("/o/crop", "crop=0.5%2C0%2C0.6%2C1&sure=yes".into()),
        ("/o/crop", "crop=1%5D%0Ax%3D%5B&sure=yes".into()),
        ("/o/crop", "crop=".into()),
    ] {
        assert_eq!(page.post(path, &shown, &fields).status, 422, "{path} {fields}");
    }
    assert_eq!(std::fs::read_to_string(place.path("o.toml")).unwrap(), before);
    assert_eq!(page.post("/o/masks", &shown, &format!("{good}&sure=yes")).header("location"), Some("/o/teach"));
    assert_eq!(config(&place).camera.mask.polygons().len(), 1);
    // The same crop leaves the masks.
    page.post("/o/crop", &shown, "crop=%5B0%2C0%2C300%2C200%5D&sure=yes");
    assert_eq!(config(&place).camera.mask.polygons().len(), 1);
    page.post("/o/crop", &shown, "crop=&sure=yes");
    let camera = config(&place).camera;
    assert!(camera.crop.is_none() && camera.mask.is_empty());
    assert_eq!(std::fs::read_to_string(place.path("o.toml")).unwrap().matches("# mine\n").count(), 1);
}
